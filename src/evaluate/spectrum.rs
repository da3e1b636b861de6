//! Eigenvalues of a symmetric matrix: Householder's reduction to tridiagonal form, then implicit QL steps
//! (Golub and Van Loan, "Matrix computations", 8.3).

/// Eigenvalues of the symmetric `n x n` matrix `a` (row-major; overwritten), in no order.
pub fn eigenvalues(a: &mut [f64], n: usize) -> Vec<f64> {
    let mut diagonal = vec![0.0; n];
    let mut off = vec![0.0; n];
    for k in 0..n.saturating_sub(2) {
        // Reflect column k below the diagonal onto its first entry.
        let norm = (k + 1..n).map(|i| a[i * n + k] * a[i * n + k]).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        let first = a[(k + 1) * n + k];
        let alpha = if first > 0.0 { -norm } else { norm };
        let mut v = vec![0.0; n];
        v[k + 1] = first - alpha;
        for i in k + 2..n {
            v[i] = a[i * n + k];
        }
        let length = v.iter().map(|x| x * x).sum::<f64>();
        if length == 0.0 {
            continue;
        }
        let beta = 2.0 / length;
        let p: Vec<f64> = (0..n)
            .map(|i| {
                beta * a[i * n + k + 1..i * n + n].iter().zip(&v[k + 1..]).map(|(x, y)| x * y).sum::<f64>()
            })
            .collect();
        let half = 0.5 * beta * p.iter().zip(&v).map(|(x, y)| x * y).sum::<f64>();
        let w: Vec<f64> = p.iter().zip(&v).map(|(x, y)| x - half * y).collect();
        for i in k..n {
            for j in k..n {
                a[i * n + j] -= v[i] * w[j] + w[i] * v[j];
            }
        }
    }
    for i in 0..n {
        diagonal[i] = a[i * n + i];
        if i + 1 < n {
            off[i] = a[(i + 1) * n + i];
        }
    }
    tridiagonal(&mut diagonal, &mut off);
    diagonal
}

/// Implicit QL with Wilkinson's shift; `off[i]` couples `i` and `i + 1`.
fn tridiagonal(d: &mut [f64], e: &mut [f64]) {
    let n = d.len();
    for l in 0..n {
        // A symmetric tridiagonal matrix needs one to two steps an eigenvalue; 60 is far beyond.
        for _ in 0..60 {
            let small = |m: usize| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs());
            let m = (l..n - 1).find(|&m| small(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + if g >= 0.0 { r } else { -r });
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut done = true;
            for i in (l..m).rev() {
                let f = s * e[i];
                let b = c * e[i];
                r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    done = false;
                    break;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
            }
            if done {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Philox;
    use engine::random::Purpose;

    #[test]
    fn a_diagonal_matrix_rotated_keeps_its_eigenvalues() {
        let n = 17;
        let want: Vec<f64> = (0..n).map(|i| (i as f64 - 3.0) * 0.7).collect();
        // Q from random Householder reflections; A = Q D Q'.
        let mut a = vec![0.0; n * n];
        (0..n).for_each(|i| a[i * n + i] = want[i]);
        let mut g = Philox::new(5, Purpose::Test, 0);
        for _ in 0..4 {
            let v: Vec<f64> = (0..n).map(|_| f64::from(g.normal())).collect();
            let beta = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
            for column in 0..n {
                let dot = (0..n).map(|i| v[i] * a[i * n + column]).sum::<f64>() * beta;
                (0..n).for_each(|i| a[i * n + column] -= dot * v[i]);
            }
            for row in 0..n {
                let dot = (0..n).map(|j| v[j] * a[row * n + j]).sum::<f64>() * beta;
                (0..n).for_each(|j| a[row * n + j] -= dot * v[j]);
            }
        }
        let mut found = eigenvalues(&mut a, n);
        found.sort_by(f64::total_cmp);
        for (f, w) in found.iter().zip(&want) {
            assert!((f - w).abs() < 1e-12 * 20.0, "{f} {w}");
        }
        assert!(eigenvalues(&mut [], 0).is_empty());
        assert_eq!(eigenvalues(&mut [3.0], 1), [3.0]);
    }
}
