//! How cost grows with the number of resources.

use serde::Serialize;

/// What one of many may cost more than one of few: more than this is no longer linear.
pub(super) const STEEPER: f64 = 1.3;

/// One cost over all sizes.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Growth {
    pub(super) what: &'static str,
    /// What each 1,000 resources more cost: the slope of a line through all sizes, by least squares.
    pub(super) for_1000_more: f64,
    /// For 1,000 resources at the largest size, without what it costs with none.
    pub(super) for_1000_at_most: f64,
    /// The least of the same at a smaller size.
    pub(super) for_1000_at_least: f64,
    pub(super) linear: bool,
}

// === impl Growth ===

impl Growth {
    /// Of pairs of a number of resources and the cost, where having none costs `none`. At least two sizes are needed.
    pub(super) fn of(what: &'static str, none: f64, points: &[(usize, f64)]) -> Option<Self> {
        let mut points: Vec<(f64, f64)> =
            points.iter().map(|(n, cost)| (u32::try_from(*n).map_or(f64::MAX, f64::from) / 1000.0, *cost)).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let for_1000_more = slope(&points)?;
        let each = |(n, cost): &(f64, f64)| (cost - none) / n;
        let (largest, smaller) = points.split_last()?;
        let for_1000_at_most = each(largest);
        let for_1000_at_least = smaller.iter().map(each).min_by(f64::total_cmp)?;
        let linear = for_1000_at_most <= STEEPER * for_1000_at_least;
        Some(Self { what, for_1000_more, for_1000_at_most, for_1000_at_least, linear })
    }
}

/// The slope of the line with the least squares of distances in y. None if all have one x.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let n = u32::try_from(points.len()).map_or(f64::MAX, f64::from);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let shared: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (spread > 0.0).then(|| shared / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(points: &[(usize, f64)]) -> Growth {
        Growth::of("memory", 10.0, points).unwrap()
    }

    #[test]
    fn a_line_has_its_slope_and_is_linear() {
        let growth = of(&[(10_000, 60.0), (100, 10.5), (1000, 15.0)]);
        assert!((growth.for_1000_more - 5.0).abs() < 1e-9, "{growth:?}");
        assert!((growth.for_1000_at_most - 5.0).abs() < 1e-9 && growth.linear, "{growth:?}");
    }

    #[test]
    fn a_fixed_cost_on_top_is_linear_and_a_square_is_not() {
        assert!(of(&[(100, 12.0), (1000, 16.5), (10_000, 61.5)]).linear);
        assert!(!of(&[(100, 10.01), (1000, 11.0), (10_000, 110.0)]).linear);
        assert!(!of(&[(100, 12.0), (1000, 13.0), (10_000, 60.0)]).linear);
    }

    #[test]
    fn one_size_shows_no_growth() {
        assert_eq!(Growth::of("memory", 10.0, &[(100, 12.0)]), None);
        assert_eq!(Growth::of("memory", 10.0, &[(100, 12.0), (100, 13.0)]), None);
    }
}
