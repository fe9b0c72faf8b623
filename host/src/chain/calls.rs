//! Numbers the function calls of an answer anew, after a transform has changed it.

use std::collections::HashSet;

use guests::GuestError;
use guests::completion::{Delta, ToolCallDelta};

/// The calls of an answer so far.
#[derive(Default)]
pub(super) struct Calls {
    /// The index of each call as it came, and its new one. None if the call is left out.
    seen: Vec<(u32, Option<u32>)>,
    kept: u32,
}

impl Calls {
    /// Whether any call was kept.
    pub(super) fn any(&self) -> bool {
        self.kept > 0
    }

    /// Numbers the calls 0, 1, 2 in the order in which they begin. With `declared`, calls of other functions are
    /// left out.
    ///
    /// # Errors
    ///
    /// Fails if a call begins without an id or a name.
    pub(super) fn renumber(
        &mut self,
        deltas: &mut Vec<Delta>,
        declared: Option<&HashSet<String>>,
    ) -> Result<(), GuestError> {
        let mut broken = None;
        deltas.retain_mut(|delta| match delta {
            Delta::ToolCall(call) => self.keep(call, declared).unwrap_or_else(|error| {
                broken = Some(error);
                false
            }),
            _ => true,
        });
        broken.map_or(Ok(()), Err)
    }

    fn keep(
        &mut self,
        call: &mut ToolCallDelta,
        declared: Option<&HashSet<String>>,
    ) -> Result<bool, GuestError> {
        let known = self.seen.iter().find(|(index, _)| *index == call.index);
        let number = match known {
            Some((_, number)) => *number,
            None => {
                let (Some(_), Some(name)) = (&call.id, &call.name) else {
                    let what = format!("call {} began without an id or a name", call.index);
                    return Err(GuestError::Contract(what));
                };
                let is_kept = declared.is_none_or(|declared| declared.contains(name));
                let number = is_kept.then_some(self.kept);
                self.kept += u32::from(is_kept);
                self.seen.push((call.index, number));
                number
            }
        };
        if let Some(number) = number {
            call.index = number;
        }
        Ok(number.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(index: u32, name: Option<&str>) -> Delta {
        Delta::ToolCall(ToolCallDelta {
            index,
            id: name.map(str::to_owned),
            name: name.map(str::to_owned),
            arguments: String::new(),
        })
    }

    fn numbers(deltas: &[Delta]) -> Vec<u32> {
        let number = |delta: &Delta| match delta {
            Delta::ToolCall(call) => Some(call.index),
            _ => None,
        };
        deltas.iter().filter_map(number).collect()
    }

    #[test]
    fn calls_are_numbered_as_they_begin_and_unknown_functions_are_left_out() {
        let declared = HashSet::from(["f".to_owned()]);
        let mut calls = Calls::default();
        let mut deltas = vec![
            call(3, Some("g")),
            call(5, Some("f")),
            Delta::Content("x".into()),
            call(3, None),
            call(5, None),
            call(1, Some("f")),
        ];
        calls.renumber(&mut deltas, Some(&declared)).unwrap();
        assert_eq!((numbers(&deltas), deltas.len()), (vec![0, 0, 1], 4));
        assert!(calls.any());
        let mut all = vec![call(3, Some("g"))];
        Calls::default().renumber(&mut all, None).unwrap();
        assert_eq!(numbers(&all), [0]);
    }

    #[test]
    fn a_call_must_begin_with_its_name() {
        let mut calls = Calls::default();
        assert!(calls.renumber(&mut vec![call(0, None)], None).is_err());
    }
}
