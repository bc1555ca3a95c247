//! Medians and spreads of repeats. What they are of is the caller's to know.

/// What several repeats of one figure say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stat {
    /// The middle one; of an even number the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Stat {
    /// Of these values, or `None` when there are none: no figure is never 0.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (count, half) = (values.len(), values.len() / 2);
        let median =
            if count % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, min, max, count })
    }

    /// How far apart the repeats are.
    pub fn spread(&self) -> f64 {
        self.max - self.min
    }

    /// Whether chance may have ordered the two medians: the repeats of either are further apart than these, or there is one
    /// value, whose spread nobody knows.
    pub fn blurs(&self, other: &Self) -> bool {
        self.count.min(other.count) < 2
            || self.spread().max(other.spread()) > (self.median - other.median).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        for (values, median) in [
            (vec![3.0], 3.0),
            (vec![5.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 100.0], 3.0),
            (vec![2.0, 2.0], 2.0),
        ] {
            let stat = Stat::of(values.clone()).unwrap();
            assert_eq!((stat.median, stat.count), (median, values.len()), "{values:?}");
        }
        assert_eq!(Stat::of([]), None);
        let stat = Stat::of([7.0, 1.0, 3.0]).unwrap();
        assert_eq!((stat.min, stat.max, stat.spread()), (1.0, 7.0, 6.0));
    }

    #[test]
    fn a_spread_larger_than_the_difference_blurs_it() {
        let stat = |values: [f64; 3]| Stat::of(values).unwrap();
        let (tight, wide) = (stat([1.0, 1.1, 1.2]), stat([1.0, 2.0, 3.0]));
        assert!(wide.blurs(&tight) && tight.blurs(&wide));
        assert!(!tight.blurs(&stat([5.0, 5.1, 5.2])));
    }

    #[test]
    fn one_value_is_never_sure() {
        let one = Stat::of([1.0]).unwrap();
        let many = Stat::of([90.0, 91.0]).unwrap();
        assert!(one.blurs(&many) && many.blurs(&one) && one.blurs(&Stat::of([2.0]).unwrap()));
    }
}
