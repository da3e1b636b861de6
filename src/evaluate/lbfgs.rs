//! L-BFGS: a quasi-Newton minimiser that keeps the last few steps and changes of the gradient (Nocedal and Wright,
//! "Numerical Optimization", 2nd edition: algorithm 7.4 for the direction, 3.5 and 3.6 for a step that meets the strong
//! Wolfe conditions).

use std::collections::VecDeque;

/// When to stop, and how much to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Pairs of steps and changes of the gradient that are kept.
    pub history: usize,
    /// Most iterations.
    pub iterations: usize,
    /// Done when no component of the gradient is larger than this.
    pub gradient: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { history: 10, iterations: 1000, gradient: 1e-5 }
    }
}

/// Where a minimisation ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minimum {
    /// The function there.
    pub value: f64,
    /// Largest component of the gradient there, absolute.
    pub gradient: f64,
    /// Iterations taken.
    pub iterations: usize,
    /// Whether the gradient is as small as was asked for.
    pub converged: bool,
}

/// Sufficient decrease and curvature of the Wolfe conditions: the book's for quasi-Newton methods.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Evaluations of one line search before it gives up.
const TRIES: usize = 30;

/// Moves `x` to a local minimum of `function`, which writes its gradient at the point it is given and returns its value.
///
/// It stops where the gradient is small enough, after the last iteration that is allowed, or where rounding leaves no
/// lower point on the line of search. `x` stays where it is if the value there is
/// not finite.
pub fn minimise(
    x: &mut [f64],
    options: &Options,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(x, &mut gradient);
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    let mut iterations = 0;
    while value.is_finite() && largest(&gradient) > options.gradient && iterations < options.iterations {
        let mut direction = descent(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 || !slope.is_finite() {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &gradient);
        }
        // Nothing is known of the scale before the first step: not further than 1.
        let first = if pairs.is_empty() { (1.0 / (-slope).sqrt()).min(1.0) } else { 1.0 };
        let line = Line { x, direction: &direction, value, slope };
        let Some(found) = line.search(first, &mut function) else {
            if pairs.is_empty() {
                break;
            }
            // What is remembered has become misleading: once more along the gradient.
            pairs.clear();
            continue;
        };
        let step: Vec<f64> = direction.iter().map(|d| found.length * d).collect();
        let change: Vec<f64> = found.gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        x.iter_mut().zip(&step).for_each(|(x, s)| *x += s);
        (value, gradient) = (found.value, found.gradient);
        let product = dot(&step, &change);
        if product > f64::EPSILON * dot(&change, &change) {
            pairs.push_back(Pair { step, change, product });
            if pairs.len() > options.history {
                pairs.pop_front();
            }
        }
        iterations += 1;
    }
    let gradient = largest(&gradient);
    Minimum { value, gradient, iterations, converged: gradient <= options.gradient }
}

/// A step and the change of the gradient along it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    product: f64,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Largest component, absolute; NaN if there is one.
fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m: f64, v| if v.is_nan() { *v } else { m.max(v.abs()) })
}

/// Minus the approximate inverse Hessian times the gradient, by the two loops of algorithm 7.4.
fn descent(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let add =
        |to: &mut [f64], factor: f64, v: &[f64]| to.iter_mut().zip(v).for_each(|(t, v)| *t += factor * v);
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let factor = dot(&pair.step, &q) / pair.product;
        add(&mut q, -factor, &pair.change);
        factors.push(factor);
    }
    if let Some(last) = pairs.back() {
        let scale = last.product / dot(&last.change, &last.change);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, factor) in pairs.iter().zip(factors.iter().rev()) {
        let back = dot(&pair.change, &q) / pair.product;
        add(&mut q, factor - back, &pair.step);
    }
    q
}

/// The function along a line.
struct Line<'a> {
    x: &'a [f64],
    direction: &'a [f64],
    /// Value and slope at the start.
    value: f64,
    slope: f64,
}

/// A point on a line.
#[derive(Clone)]
struct Point {
    length: f64,
    value: f64,
    slope: f64,
    gradient: Vec<f64>,
}

impl Line<'_> {
    fn at(&self, length: f64, function: &mut impl FnMut(&[f64], &mut [f64]) -> f64) -> Point {
        let x: Vec<f64> = self.x.iter().zip(self.direction).map(|(x, d)| x + length * d).collect();
        let mut gradient = vec![0.0; x.len()];
        let value = function(&x, &mut gradient);
        Point { length, value, slope: dot(&gradient, self.direction), gradient }
    }

    /// Whether the value is too high; one that is no number is.
    fn is_high(&self, point: &Point) -> bool {
        point.value.is_nan() || point.value > self.value + DECREASE * point.length * self.slope
    }

    fn is_flat(&self, point: &Point) -> bool {
        point.slope.abs() <= -CURVATURE * self.slope
    }

    /// Whether a point is as good as can be told where values differ by rounding alone: its slope says what its value no longer
    /// can (Hager and Zhang 2005, "A new conjugate gradient method", the approximate Wolfe conditions).
    fn is_near(&self, point: &Point) -> bool {
        let noise = 1e-14 * self.value.abs();
        point.value <= self.value + noise
            && point.slope <= (2.0 * DECREASE - 1.0) * self.slope
            && self.is_flat(point)
    }

    /// A point that meets the strong Wolfe conditions, or at least one that is lower than the start; none if there is no such.
    fn search(&self, first: f64, function: &mut impl FnMut(&[f64], &mut [f64]) -> f64) -> Option<Point> {
        let start = Point { length: 0.0, value: self.value, slope: self.slope, gradient: Vec::new() };
        let (mut before, mut length) = (start, first);
        for i in 0..TRIES {
            let point = self.at(length, function);
            if self.is_near(&point) {
                return Some(point);
            }
            if self.is_high(&point) || i > 0 && point.value >= before.value {
                return self.zoom(before, point, function);
            }
            if self.is_flat(&point) {
                return Some(point);
            }
            if point.slope >= 0.0 {
                return self.zoom(point, before, function);
            }
            length *= 2.0;
            before = point;
        }
        (before.length > 0.0).then_some(before)
    }

    /// As [`Line::search`], between `low`, the lower of two points, and `high`.
    fn zoom(
        &self,
        mut low: Point,
        mut high: Point,
        function: &mut impl FnMut(&[f64], &mut [f64]) -> f64,
    ) -> Option<Point> {
        for _ in 0..TRIES {
            let point = self.at(between(&low, &high), function);
            if self.is_near(&point) {
                return Some(point);
            }
            if self.is_high(&point) || point.value >= low.value {
                high = point;
            } else {
                if self.is_flat(&point) {
                    return Some(point);
                }
                if point.slope * (high.length - low.length) >= 0.0 {
                    high = low;
                }
                low = point;
            }
            if (high.length - low.length).abs() <= 1e-14 * high.length.abs().max(low.length) {
                break;
            }
        }
        (low.length > 0.0 && low.value < self.value).then_some(low)
    }
}

/// The minimum of the cubic through both points' values and slopes (equation 3.59), kept off the ends by a tenth; the
/// middle where there is none.
fn between(a: &Point, b: &Point) -> f64 {
    let width = b.length - a.length;
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.length - b.length);
    let root = width.signum() * (d1 * d1 - a.slope * b.slope).sqrt();
    let cubic = b.length - width * (b.slope + root - d1) / (b.slope - a.slope + 2.0 * root);
    let part = (cubic - a.length) / width;
    a.length + width * if part.is_finite() { part.clamp(0.1, 0.9) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tight() -> Options {
        Options { gradient: 1e-10, ..Options::default() }
    }

    /// f = sum c_i (x_i - i)^2 / 2 with curvatures over three decades: SciPy's L-BFGS-B takes 315 iterations.
    #[test]
    fn a_quadratic_with_very_different_curvatures() {
        let n = 30;
        let curvature: Vec<f64> =
            (0..n).map(|i| 10f64.powf(-1.5 + 3.0 * i as f64 / (n - 1) as f64)).collect();
        let mut x = vec![-5.0; n];
        let end = minimise(&mut x, &tight(), |x, g| {
            (0..n).for_each(|i| g[i] = curvature[i] * (x[i] - i as f64));
            (0..n).map(|i| 0.5 * g[i] * (x[i] - i as f64)).sum()
        });
        assert!(end.converged && end.iterations < 400, "{end:?}");
        for (i, x) in x.iter().enumerate() {
            assert!((x - i as f64).abs() < 1e-6, "{i}: {x}");
        }
    }

    /// Rosenbrock's curved valley, in ten dimensions: the minimum is (1, ..., 1).
    #[test]
    fn rosenbrock() {
        let valley = |x: &[f64], g: &mut [f64]| {
            g.fill(0.0);
            let mut value = 0.0;
            for i in 0..x.len() - 1 {
                let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
                value += 100.0 * a * a + b * b;
                g[i] += -400.0 * a * x[i] - 2.0 * b;
                g[i + 1] += 200.0 * a;
            }
            value
        };
        let mut x = vec![0.0; 10];
        (0..5).for_each(|i| x[2 * i] = -1.2);
        let end = minimise(&mut x, &tight(), valley);
        assert!(end.converged && end.value < 1e-18 && end.iterations < 200, "{end:?}");
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-9), "{x:?}");
    }

    /// A function that is infinite beyond 1 is not stepped over, and too few iterations are told.
    #[test]
    fn steps_stay_where_the_function_is_finite() {
        let barrier = |x: &[f64], g: &mut [f64]| {
            g[0] = 1.0 / (1.0 - x[0]) - 10.0;
            if x[0] < 1.0 { -(1.0 - x[0]).ln() - 10.0 * x[0] } else { f64::INFINITY }
        };
        let mut x = [-3.0];
        assert!(minimise(&mut x, &tight(), barrier).converged);
        assert!((x[0] - 0.9).abs() < 1e-9, "{x:?}");
        let mut x = [-3.0];
        assert!(!minimise(&mut x, &Options { iterations: 1, ..tight() }, barrier).converged);
        let mut x = [2.0];
        assert!(!minimise(&mut x, &tight(), barrier).converged && x == [2.0]);
    }
}
