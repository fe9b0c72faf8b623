//! What a parked process holds, and whether a request can go on with it.
//!
//! ```text
//! held    A B C        A B C waits for results     A B C
//! sought  A B C        A B C brings them           A X
//!         go on        hand them in                take back C and B, keep A, write X
//! ```

use guests::completion::Resumption;

/// The digest of a turn, or of all that is fixed for a conversation.
pub(crate) type Key = [u8; 32];

/// The most turns that are taken back for one request. Taking back one takes up to 30 ms, and another process is
/// there in 600.
const REWINDS_MAX: usize = 16;

/// What a parked process holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// Who may go on with it, and everything that was fixed when its conversation began.
    pub(crate) owner: Key,
    /// The turns, oldest first, each with what takes the process back to before it.
    pub(crate) turns: Vec<(Key, Option<String>)>,
    /// The ids of the calls whose results it waits for.
    pub(crate) awaited: Vec<String>,
    /// The adapter's note for the next session.
    pub(crate) memo: String,
    /// How many requests the process has served.
    pub(crate) served: u32,
}

/// What a process must hold so that a request can go on with it.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) owner: Key,
    pub(crate) turns: Vec<Key>,
    /// The ids of the calls whose results the request brings.
    pub(crate) results: Vec<String>,
}

/// What a process did not take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A turn that waited for results.
    Waiting,
    /// All that it held.
    First,
    /// A later turn.
    Later,
}

/// What processes of a kind have refused to take back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    waiting: bool,
    first: bool,
    /// How often it was a later turn. Once may be an accident.
    later: u32,
}

impl Refused {
    /// Takes note of a refusal.
    pub(crate) fn record(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Waiting => self.waiting = true,
            Refusal::First => self.first = true,
            Refusal::Later => self.later += 1,
        }
    }

    /// Whether a process like these need not be asked.
    fn is_in_vain(self, kept: usize, is_awaiting: bool) -> bool {
        self.later > 1 || (self.first && kept == 0) || (self.waiting && is_awaiting)
    }
}

/// How well a process fits: how many turns are kept, and how many must be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) kept: usize,
    pub(crate) rewinds: usize,
}

impl Held {
    /// Whether a request can go on with the process, and how much of what it holds is kept.
    pub(crate) fn fit(&self, sought: &Sought, refused: Refused) -> Option<Fit> {
        if self.owner != sought.owner {
            return None;
        }
        let held = self.turns.iter().map(|(key, _)| key);
        let shared = held.zip(&sought.turns);
        let shared = shared.take_while(|(held, sought)| held == sought).count();
        let all = self.turns.len();
        if self.is_awaiting() {
            let brought = self.brings_all(&sought.results);
            if shared == all && all == sought.turns.len() && brought {
                return Some(Fit {
                    kept: all,
                    rewinds: 0,
                });
            }
        }
        // A turn that waits for results cannot stay as it is.
        let kept = match self.is_awaiting() {
            true => shared.min(all.saturating_sub(1)),
            false => shared,
        };
        let mut gone = self.turns.iter().skip(kept);
        let rewinds = all - kept;
        let is_possible = gone.all(|(_, rewind)| rewind.is_some()) && rewinds <= REWINDS_MAX;
        let is_refused = rewinds > 0 && refused.is_in_vain(kept, self.is_awaiting());
        (is_possible && !is_refused).then_some(Fit { kept, rewinds })
    }

    /// How a session goes on with the process, if it fits like this.
    pub(crate) fn resumption(self, fit: Fit) -> Resumption {
        let gone = self.turns.into_iter().skip(fit.kept);
        let mut rewinds: Vec<String> = gone.filter_map(|(_, rewind)| rewind).collect();
        rewinds.reverse();
        Resumption {
            memo: self.memo,
            kept: fit.kept as u32,
            rewinds,
        }
    }

    /// What it means if the process does not take back what does not fit. None if nothing is to be taken back.
    pub(crate) fn refusal(&self, fit: Fit) -> Option<Refusal> {
        match (fit.rewinds, self.is_awaiting(), fit.kept) {
            (0, ..) => None,
            (_, true, _) => Some(Refusal::Waiting),
            (_, false, 0) => Some(Refusal::First),
            (_, false, _) => Some(Refusal::Later),
        }
    }

    /// Whether the process waits for results.
    pub(crate) fn is_awaiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    fn brings_all(&self, results: &[String]) -> bool {
        let brings = |id| results.contains(id);
        results.len() == self.awaited.len() && self.awaited.iter().all(brings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(turn: char) -> Key {
        [turn as u8; 32]
    }

    fn held(turns: &str, awaited: &[&str]) -> Held {
        let turns = turns.chars();
        Held {
            owner: key('o'),
            turns: turns
                .map(|turn| (key(turn), Some(turn.to_string())))
                .collect(),
            awaited: awaited.iter().map(|id| (*id).to_owned()).collect(),
            memo: "memo".into(),
            served: 1,
        }
    }

    fn sought(turns: &str, results: &[&str]) -> Sought {
        Sought {
            owner: key('o'),
            turns: turns.chars().map(key).collect(),
            results: results.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    /// Turns that are kept, and what takes back the others.
    fn fit(held: Held, sought: &Sought, refused: Refused) -> Option<(u32, String)> {
        let fit = held.fit(sought, refused)?;
        let resumption = held.resumption(fit);
        assert_eq!(
            (resumption.memo, resumption.rewinds.len()),
            ("memo".into(), fit.rewinds)
        );
        Some((resumption.kept, resumption.rewinds.concat()))
    }

    #[test]
    fn turns_that_differ_are_taken_back_newest_first() {
        let any = Refused::default();
        for (have, want, expected) in [
            ("abc", "abc", (3, "")),
            ("abc", "ab", (2, "c")),
            ("abc", "ax", (1, "cb")),
            ("abc", "abcd", (3, "")),
            ("abc", "x", (0, "cba")),
            ("abc", "", (0, "cba")),
            ("", "ab", (0, "")),
        ] {
            let found = fit(held(have, &[]), &sought(want, &[]), any).unwrap();
            assert_eq!((found.0, &*found.1), expected, "{have} for {want}");
        }
    }

    #[test]
    fn results_are_handed_in_only_to_the_process_that_waits_for_just_them() {
        let any = Refused::default();
        let waiting = || held("abc", &["1", "2"]);
        for (want, results, expected) in [
            ("abc", &["2", "1"][..], (3, "")),
            ("abc", &["1"], (2, "c")),
            ("abc", &["1", "2", "3"], (2, "c")),
            ("abc", &["1", "1"], (2, "c")),
            ("abc", &[], (2, "c")),
            ("ab", &[], (2, "c")),
            ("a", &["1", "2"], (1, "cb")),
        ] {
            let found = fit(waiting(), &sought(want, results), any).unwrap();
            assert_eq!((found.0, &*found.1), expected, "{want} {results:?}");
        }
    }

    #[test]
    fn nobody_elses_conversation_fits_and_nothing_that_cannot_be_taken_back() {
        let any = Refused::default();
        let mut others = sought("ab", &[]);
        others.owner = key('x');
        assert_eq!(fit(held("ab", &[]), &others, any), None);
        let mut fast = held("abc", &[]);
        fast.turns[1].1 = None;
        assert_eq!(fit(fast, &sought("a", &[]), any), None);
        let mut fast = held("abc", &[]);
        fast.turns[0].1 = None;
        assert!(fit(fast, &sought("a", &[]), any).is_some());
        let long: String = ('a'..='z').collect();
        assert_eq!(fit(held(&long, &[]), &sought("a", &[]), any), None);
    }

    #[test]
    fn what_was_refused_is_not_asked_again() {
        let refused = |refusals: &[Refusal]| {
            let mut refused = Refused::default();
            refusals.iter().for_each(|refusal| refused.record(*refusal));
            refused
        };
        let fits = |held: Held, want: &str, refusals: &[Refusal]| {
            held.fit(&sought(want, &[]), refused(refusals)).is_some()
        };
        assert!(!fits(held("ab", &[]), "x", &[Refusal::First]));
        assert!(fits(held("ab", &[]), "a", &[Refusal::First]));
        assert!(fits(held("ab", &[]), "a", &[Refusal::Later]));
        assert!(!fits(
            held("ab", &[]),
            "a",
            &[Refusal::Later, Refusal::Later]
        ));
        assert!(fits(
            held("ab", &[]),
            "ab",
            &[Refusal::Later, Refusal::Later]
        ));
        assert!(!fits(held("ab", &["1"]), "a", &[Refusal::Waiting]));
        assert!(fits(held("ab", &[]), "a", &[Refusal::Waiting]));
    }
}
