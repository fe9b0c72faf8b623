//! Who pays for an answer that several get.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The first of them who has all of it pays, or else the last who leaves.
#[derive(Default)]
pub(crate) struct Charge(Arc<Bill>);

#[derive(Default)]
struct Bill {
    is_paid: AtomicBool,
    /// How many get the answer.
    payers: AtomicUsize,
}

impl Charge {
    /// The charge of one more who gets the answer.
    pub(super) fn share(&self) -> Charge {
        self.0.payers.fetch_add(1, Ordering::SeqCst);
        Charge(self.0.clone())
    }

    /// Takes note that this one leaves. Whether nobody is left who may pay.
    pub(crate) fn leave(&self) -> bool {
        self.0.payers.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether nobody has paid yet. Who asks, pays.
    pub(crate) fn take(&self) -> bool {
        !self.0.is_paid.swap(true, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_those_who_share_an_answer_pays() {
        let charge = Charge::default();
        let (one, other) = (charge.share(), charge.share());
        assert!(!one.leave() && other.leave());
        assert!(other.take() && !charge.share().take());
    }
}
