//! The map of principal components: the two directions in which a set of vectors spreads most.

use crate::evaluate::Labelled;
use crate::evaluate::classical::pca::Pca;
use engine::Result;

/// Two coordinates a row, and how much of the whole variance each has, in 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// One pair a row of the input.
    pub points: Vec<[f64; 2]>,
    /// Parts of the variance.
    pub explained: [f64; 2],
}

/// The projection of `rows` (row-major, `dim` values each), centred, on their first two principal components. Fewer than two rows,
/// or rows that are all the same, have points that are all the same.
pub fn project(rows: &[f32], dim: usize) -> Result<Projection> {
    let n = rows.len() / dim.max(1);
    let set = Labelled { features: rows.to_vec(), dim, labels: vec![0; n] };
    let nothing = Projection { points: vec![[0.0; 2]; n], explained: [0.0; 2] };
    if n < 2 {
        return Ok(nothing);
    }
    let pca = Pca::fit(&set, dim.min(2))?;
    if pca.total <= 0.0 {
        return Ok(nothing);
    }
    let found = pca.project(&set, false)?;
    let coordinate = |i: usize, c: usize| found.row(i).get(c).map_or(0.0, |v| f64::from(*v));
    let part = |c: usize| pca.variances.get(c).map_or(0.0, |v| v / pca.total);
    Ok(Projection {
        points: (0..n).map(|i| [coordinate(i, 0), coordinate(i, 1)]).collect(),
        explained: [part(0), part(1)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degenerate_sets_have_points_all_the_same() {
        assert_eq!(project(&[], 4).unwrap().points.len(), 0);
        for rows in [&[2.0; 12][..], &[1.0, 2.0, 3.0, 4.0]] {
            let found = project(rows, 4).unwrap();
            assert!(found.points.iter().all(|p| *p == [0.0; 2]) && found.explained == [0.0; 2], "{found:?}");
        }
        let line = project(&[0.0, 1.0, 2.0], 1).unwrap();
        assert!(
            (line.explained[0] - 1.0).abs() < 1e-6 && line.points.iter().all(|p| p[1] == 0.0),
            "{line:?}"
        );
    }

    #[test]
    fn a_line_in_space_is_a_line_on_the_map() {
        let rows: Vec<f32> = (0..50).flat_map(|i| [i as f32, -2.0 * i as f32, 7.0]).collect();
        let found = project(&rows, 3).unwrap();
        assert!(found.explained[0] > 0.9999, "{:?}", found.explained);
        let step = found.points[1][0] - found.points[0][0];
        assert!((step.abs() - 5f64.sqrt()).abs() < 1e-4, "{step}");
    }
}
