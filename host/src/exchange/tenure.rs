//! The states of a lease: whether it has a process, and whether that process may still be replaced.
//!
//! ```text
//! Untried ──────proof──────► Tried ──► Over
//!    │                         ▲
//!    └──end, unfit──► Ended ──replaced
//! ```

use std::time::Duration;

use processes::{Hold, Process};
use tokio::time::Instant;

/// What a lease needs of a process. A trait, so that tests can use a fake.
pub(super) trait Serves {
    /// Gives the process something to hold, such as the request's permit. It is released when nothing is left
    /// of the process.
    fn serve(&mut self, hold: Option<Hold>);
    /// Takes back what the process holds.
    fn rest(&mut self) -> Option<Hold>;
}

impl Serves for Process {
    fn serve(&mut self, hold: Option<Hold>) {
        self.serve(hold);
    }

    fn rest(&mut self) -> Option<Hold> {
        self.rest()
    }
}

/// What proves that a process that had been idle can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It printed something.
    FirstWord,
    /// The answer began. A process that holds a conversation may print something before, and still not go on with it.
    Answer,
}

/// The state of a lease.
pub(super) enum Tenure<P> {
    /// A process that had been idle and has not proved itself yet: if it ends, it is replaced.
    Untried(P, Proof),
    /// A process that has proved itself, or is new: if it ends, it is not replaced; the guest is told.
    Tried(P),
    /// The process did not prove itself, and is replaced before `deadline`. `hold` is the request's permit, while
    /// there is no process to hold it.
    Ended {
        hold: Option<Hold>,
        deadline: Instant,
    },
    /// There is no process any more.
    Over,
}

/// What an output of the process means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The process ended, and is to be replaced.
    EndBeforeProof,
    /// A process that had been idle proved itself by its first word.
    FirstWord,
    /// Anything else. The state stays as it is.
    More,
}

impl<P: Serves> Tenure<P> {
    /// The process, if there is one.
    pub(super) fn process(&mut self) -> Option<&mut P> {
        match self {
            Tenure::Untried(process, _) | Tenure::Tried(process) => Some(process),
            Tenure::Ended { .. } | Tenure::Over => None,
        }
    }

    /// Takes note that the process printed something, or ended. `patience` is how long a request may wait for a
    /// replacement.
    pub(super) fn heard(&mut self, has_ended: bool, patience: Duration) -> Heard {
        match self {
            Tenure::Untried(..) if has_ended => {
                self.give_up(patience);
                Heard::EndBeforeProof
            }
            Tenure::Untried(_, Proof::FirstWord) => {
                self.prove();
                Heard::FirstWord
            }
            _ => Heard::More,
        }
    }

    /// The process has proved itself. True if it had been idle before.
    pub(super) fn prove(&mut self) -> bool {
        match std::mem::replace(self, Tenure::Over) {
            Tenure::Untried(process, _) => {
                *self = Tenure::Tried(process);
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    /// Ends a process that has not proved itself. False if there is none.
    pub(super) fn give_up(&mut self, patience: Duration) -> bool {
        match std::mem::replace(self, Tenure::Over) {
            Tenure::Untried(mut process, _) => {
                let hold = process.rest();
                // Dropping it frees its slot, which the replacement can take.
                drop(process);
                let deadline = Instant::now() + patience;
                *self = Tenure::Ended { hold, deadline };
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    /// Another process takes the place of the one that ended.
    pub(super) fn replace(&mut self, mut process: P) {
        if let Tenure::Ended { hold, .. } = self {
            process.serve(hold.take());
        }
        *self = Tenure::Tried(process);
    }

    /// Gives the process away, with what it held, if it is fit.
    pub(super) fn release(&mut self, is_fit: impl Fn(&P) -> bool) -> Option<(P, Option<Hold>)> {
        match std::mem::replace(self, Tenure::Over) {
            Tenure::Untried(mut process, _) | Tenure::Tried(mut process) if is_fit(&process) => {
                let hold = process.rest();
                Some((process, hold))
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Weak};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[derive(Default)]
    struct Fake(Option<Hold>);

    impl Serves for Fake {
        fn serve(&mut self, hold: Option<Hold>) {
            self.0 = hold;
        }

        fn rest(&mut self) -> Option<Hold> {
            self.0.take()
        }
    }

    /// A process that holds a permit, and a way to see whether that is still held.
    fn serving() -> (Fake, Weak<()>) {
        let permit = Arc::new(());
        let held = Arc::downgrade(&permit);
        (Fake(Some(Box::new(permit))), held)
    }

    #[test]
    fn a_process_that_was_idle_is_replaced_once_and_the_permit_is_held_all_along() {
        let (process, permit) = serving();
        let mut tenure = Tenure::Untried(process, Proof::FirstWord);
        assert_eq!(tenure.heard(true, PATIENCE), Heard::EndBeforeProof);
        assert!(tenure.process().is_none());
        assert_eq!(permit.strong_count(), 1);
        tenure.replace(Fake::default());
        assert!(tenure.process().is_some_and(|process| process.0.is_some()));
        assert_eq!(tenure.heard(true, PATIENCE), Heard::More);
        assert!(tenure.process().is_some());
        drop(tenure);
        assert_eq!(permit.strong_count(), 0);
    }

    #[test]
    fn a_process_that_has_printed_something_is_not_replaced() {
        let mut tenure = Tenure::Untried(serving().0, Proof::FirstWord);
        assert_eq!(tenure.heard(false, PATIENCE), Heard::FirstWord);
        assert_eq!(tenure.heard(false, PATIENCE), Heard::More);
        assert_eq!(tenure.heard(true, PATIENCE), Heard::More);
        assert!(!tenure.give_up(PATIENCE));
    }

    #[test]
    fn a_process_that_holds_a_conversation_is_replaced_until_the_answer_begins() {
        let resumed = || Tenure::Untried(serving().0, Proof::Answer);
        let mut tenure = resumed();
        assert_eq!(tenure.heard(false, PATIENCE), Heard::More);
        assert_eq!(tenure.heard(true, PATIENCE), Heard::EndBeforeProof);
        let mut tenure = resumed();
        assert_eq!(tenure.heard(false, PATIENCE), Heard::More);
        assert!(tenure.give_up(PATIENCE) && tenure.process().is_none());
        let mut tenure = resumed();
        assert!(tenure.prove() && !tenure.prove() && !tenure.give_up(PATIENCE));
        assert_eq!(tenure.heard(true, PATIENCE), Heard::More);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replacement_is_waited_for_as_long_as_for_any_process() {
        let mut tenure = Tenure::Untried(serving().0, Proof::FirstWord);
        tokio::time::advance(PATIENCE).await;
        tenure.heard(true, PATIENCE);
        let Tenure::Ended { deadline, .. } = tenure else {
            panic!("it is not replaced");
        };
        assert_eq!(deadline, Instant::now() + PATIENCE);
    }

    #[test]
    fn only_a_fit_process_is_given_away_and_its_permit_with_it() {
        let (process, permit) = serving();
        let mut tenure = Tenure::Tried(process);
        assert!(tenure.release(|_| false).is_none());
        assert!(tenure.process().is_some());
        let (process, hold) = tenure.release(|_| true).unwrap();
        assert!(process.0.is_none() && hold.is_some());
        drop(hold);
        assert_eq!(permit.strong_count(), 0);
        assert!(tenure.process().is_none() && tenure.release(|_| true).is_none());
    }
}
