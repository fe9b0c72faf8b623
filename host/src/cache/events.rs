//! The events of an answer, stored one behind the other: there are many, and most are a few letters.

use guests::completion::Delta;

use crate::exchange::Event;

/// What an event takes that is stored whole, in bytes and without its text: about the size of its type and of an allocation.
const WHOLE_SIZE: usize = 256;

/// Events in their order.
#[derive(Default)]
pub(super) struct Events {
    pieces: Vec<Piece>,
    /// The texts of all pieces that are text.
    text: String,
    /// The events that are no text.
    whole: Vec<Event>,
    /// What `whole` takes, in bytes.
    whole_size: usize,
}

/// An event: where its text ends, or that it is stored whole.
#[derive(Clone, Copy)]
enum Piece {
    Content(u32),
    Reasoning(u32),
    Refusal(u32),
    Whole,
}

/// How far a reader has come.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    piece: usize,
    text: usize,
    whole: usize,
}

impl Events {
    /// What they take in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.pieces.len() * size_of::<Piece>() + self.text.len() + self.whole_size
    }

    /// Adds one.
    pub(super) fn push(&mut self, event: &Event) {
        let piece = match event {
            Event::Delta(Delta::Content(text)) => self.text(text).map(Piece::Content),
            Event::Delta(Delta::Reasoning(text)) => self.text(text).map(Piece::Reasoning),
            Event::Delta(Delta::Refusal(text)) => self.text(text).map(Piece::Refusal),
            _ => None,
        };
        if piece.is_none() {
            self.whole.push(event.clone());
            self.whole_size += WHOLE_SIZE;
            if let Event::Delta(delta) = event {
                self.whole_size += delta.size();
            }
        }
        self.pieces.push(piece.unwrap_or(Piece::Whole));
    }

    /// Gives back the memory that was kept free for more of them.
    pub(super) fn shrink(&mut self) {
        self.pieces.shrink_to_fit();
        self.text.shrink_to_fit();
        self.whole.shrink_to_fit();
    }

    /// Adds a text, and returns where it ends. None if it ends beyond what a piece can say.
    fn text(&mut self, text: &str) -> Option<u32> {
        let end = u32::try_from(self.text.len() + text.len()).ok()?;
        self.text.push_str(text);
        Some(end)
    }

    /// The event at a place, which moves on. None if there is none yet.
    pub(super) fn next(&self, place: &mut Place) -> Option<Event> {
        let piece = *self.pieces.get(place.piece)?;
        let mut text = |end: u32| {
            let begin = std::mem::replace(&mut place.text, end as usize);
            self.text
                .get(begin..end as usize)
                .unwrap_or_default()
                .to_owned()
        };
        let event = match piece {
            Piece::Content(end) => Event::Delta(Delta::Content(text(end))),
            Piece::Reasoning(end) => Event::Delta(Delta::Reasoning(text(end))),
            Piece::Refusal(end) => Event::Delta(Delta::Refusal(text(end))),
            Piece::Whole => {
                let whole = self.whole.get(place.whole)?.clone();
                place.whole += 1;
                whole
            }
        };
        place.piece += 1;
        Some(event)
    }

    /// The place behind all of them.
    pub(super) fn end(&self) -> Place {
        Place {
            piece: self.pieces.len(),
            text: self.text.len(),
            whole: self.whole.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use guests::completion::ToolCallDelta;

    use super::*;

    #[test]
    fn events_come_back_as_they_were_and_short_ones_take_little() {
        let call = ToolCallDelta {
            index: 0,
            id: Some("c".into()),
            name: Some("f".into()),
            arguments: "{}".into(),
        };
        let given = [
            Delta::Content("a\u{e9}".into()),
            Delta::Reasoning("hm".into()),
            Delta::ToolCall(call),
            Delta::Content(String::new()),
            Delta::Refusal("no".into()),
            Delta::Content("b".into()),
        ]
        .map(Event::Delta);
        let (mut events, mut place) = (Events::default(), Place::default());
        assert!(events.next(&mut place).is_none());
        given.iter().for_each(|event| events.push(event));
        let mut last = events.end();
        let back = std::iter::from_fn(|| events.next(&mut place));
        let back: Vec<String> = back.map(|event| format!("{event:?}")).collect();
        assert_eq!(back, given.map(|event| format!("{event:?}")));
        assert!(events.next(&mut last).is_none());
        assert!(events.size() < WHOLE_SIZE + 100);
    }
}
