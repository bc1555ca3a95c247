//! Where a value goes on an axis, and which values are written there.

/// An axis: values from one end to the other, on pixels from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    pixels: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    /// From 0 to a round value that is at least `max`.
    pub fn linear(max: f64, pixels: (f64, f64)) -> Self {
        let step = step(max);
        Self { from: 0.0, to: (max / step).ceil().max(1.0) * step, pixels, logarithmic: false }
    }

    /// From 0 to exactly `max`.
    pub fn exact(max: f64, pixels: (f64, f64)) -> Self {
        Self { from: 0.0, to: if max > 0.0 { max } else { 1.0 }, pixels, logarithmic: false }
    }

    /// Logarithmic, between the powers of ten (or their halves and fifths) that enclose all positive values; what isn't
    /// positive has no place on it and goes to its beginning.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let values = values.into_iter().filter(|value| *value > 0.0);
        let (min, max) =
            values.fold((f64::MAX, 0.0_f64), |(min, max), value| (min.min(value), max.max(value)));
        let (min, max) = if max > 0.0 { (min, max) } else { (1.0, 10.0) };
        let from = round_values(min).rev().find(|value| *value <= min).unwrap_or(min);
        let to = round_values(max).find(|value| *value >= max && *value > from).unwrap_or(max * 2.0);
        Self { from, to, pixels, logarithmic: true }
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Round values to write at the axis, in order.
    pub fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            let step = step(self.to);
            // Neither 0.6000000000000001 nor anything else that only binary fractions know is to be written.
            let tidy = |tick: f64| (tick * 1e9).round() / 1e9;
            let ticks = (0..=20).map(|at| tidy(f64::from(at) * step));
            return ticks.take_while(|tick| *tick <= self.to * 1.0001).collect();
        }
        let mut ticks = Vec::new();
        let mut near = self.from;
        while near < self.to * 10.0 {
            ticks.extend(round_values(near).filter(|tick| (self.from..=self.to * 1.0001).contains(tick)));
            near *= 10.0;
        }
        ticks.sort_by(f64::total_cmp);
        ticks.dedup_by(|a, b| (*a / *b - 1.0).abs() < 0.001);
        // With many powers of ten these alone: others' labels would touch.
        const CROWD: usize = 7;
        if ticks.len() > CROWD {
            ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 0.001);
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, so that `max` is about five of it.
fn step(max: f64) -> f64 {
    let rough = max / 5.0;
    if rough <= 0.0 || !rough.is_finite() {
        return 1.0;
    }
    let power = 10.0_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power * 10.0)
}

/// 1, 2 and 5 times the powers of ten around a value, in order.
fn round_values(near: f64) -> impl DoubleEndedIterator<Item = f64> {
    let power = 10.0_f64.powf(near.log10().floor());
    [power / 10.0, power, power * 10.0]
        .into_iter()
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_end_at_a_round_value() {
        for (max, ticks) in [
            (100.0, vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0]),
            (8.3, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (0.9, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (0.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ] {
            let scale = Scale::linear(max, (0.0, 100.0));
            assert_eq!(scale.ticks(), ticks);
            assert_eq!((scale.at(0.0), scale.at(*ticks.last().unwrap())), (0.0, 100.0));
        }
    }

    #[test]
    fn logarithmic_axes_enclose_their_values() {
        for (values, ticks) in [
            (vec![3.0, 40.0], vec![2.0, 5.0, 10.0, 20.0, 50.0]),
            (vec![1.0, 1600.0], vec![1.0, 10.0, 100.0, 1000.0]),
            (vec![7.0], vec![5.0, 10.0]),
            (vec![5.0], vec![5.0, 10.0]),
            (vec![], vec![1.0, 2.0, 5.0, 10.0]),
        ] {
            let scale = Scale::logarithmic(values.clone(), (0.0, 100.0));
            let got = scale.ticks();
            assert_eq!(got.len(), ticks.len(), "{values:?}: {got:?}");
            assert!(
                std::iter::zip(&got, &ticks).all(|(a, b)| (a / b - 1.0).abs() < 1e-6),
                "{got:?} {ticks:?}"
            );
            assert!(values.iter().all(|value| (0.0..=100.01).contains(&scale.at(*value))), "{values:?}");
        }
    }
}
