//! How much was served, and how much of that was wrong.

use serde::Serialize;

/// What a policy did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Questions that it answered.
    pub served: usize,
    /// Of them, those with another answer than the right one.
    pub wrong: usize,
}

impl Done {
    pub(crate) fn count(&mut self, right: bool) {
        self.served += 1;
        self.wrong += usize::from(!right);
    }

    /// Of what was served: the share that was wrong, and the most that may be with a confidence of
    /// 95 % (Wilson, one-sided).
    #[must_use]
    pub fn wrong_share(self) -> (f64, f64) {
        let (n, z) = (self.served.max(1) as f64, 1.645_f64);
        let share = self.wrong as f64 / n;
        let middle = share + z * z / (2.0 * n);
        let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        (share, (middle + spread) / (1.0 + z * z / n))
    }

    /// The same in words, of so many questions.
    #[must_use]
    pub fn told(self, asked: usize) -> String {
        let (share, most) = self.wrong_share();
        format!(
            "{:5.1} % served, {:5.2} % of that wrong (at most {:.2} %: {} of {})",
            100.0 * self.served as f64 / asked as f64,
            100.0 * share,
            100.0 * most,
            self.wrong,
            self.served
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_that_of_wilson() {
        let (share, most) = Done { served: 300, wrong: 2 }.wrong_share();
        assert!((share - 2.0 / 300.0).abs() < 1e-9 && (most - 0.0198).abs() < 1e-3, "{most}");
        let (share, most) = Done { served: 228, wrong: 0 }.wrong_share();
        assert!(share == 0.0 && (most - 0.0117).abs() < 1e-3, "{most}");
        assert!(Done::default().wrong_share().1 > 0.7, "of nothing, nothing is known");
    }
}
