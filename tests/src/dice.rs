//! Random choices that are the same in each run.

/// A linear congruential generator (Knuth's MMIX), from a seed.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }
}
