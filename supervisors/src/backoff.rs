//! How long to wait before the next restart.

use std::time::Duration;

/// Waits that grow from restart to restart. The first restart does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second restart.
    pub first: Duration,
    /// Each further wait is this many times the one before.
    pub factor: u32,
    /// No wait is longer.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { first: Duration::from_millis(50), factor: 2, max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The wait before restart `number`, counted from 1.
    pub fn wait(&self, number: u32) -> Duration {
        match number {
            0 | 1 => Duration::ZERO,
            _ => {
                let times = self.factor.checked_pow(number - 2).unwrap_or(u32::MAX);
                self.first.checked_mul(times).unwrap_or(self.max).min(self.max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest() {
        let backoff =
            Backoff { first: Duration::from_millis(10), factor: 3, max: Duration::from_millis(100) };
        let waits: Vec<_> = [1, 2, 3, 4, 5, 400].map(|n| backoff.wait(n).as_millis()).into();
        assert_eq!(waits, [0, 10, 30, 90, 100, 100]);
    }
}
