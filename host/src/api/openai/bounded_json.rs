//! JSON values with a bounded number of parts.
//!
//! A value as a tree takes up to 150 times the memory of its text: `[[[0]]]` is a vector in a vector in a
//! vector. So a request is never read into one tree. Only the pieces that must be checked are, one after the
//! other, and with a bound on the number of parts.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// A bound on the parts that are still to be read. Each value is a part, also within arrays and objects.
/// Reading fails at the part that brings `left` to 0.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
    repeated: RefCell<Option<String>>,
}

/// Why a value was not read.
#[derive(Debug)]
pub(super) enum Error {
    /// It has more parts than are left.
    TooMany,
    /// An object has this key twice. JSON readers differ in which one they take.
    Repeated(String),
    /// It cannot be read, for this reason: a lone surrogate, say, or more than 128 levels.
    Invalid(serde_json::Error),
}

impl Budget {
    pub(super) fn new(parts: usize) -> Self {
        Budget {
            left: Cell::new(parts),
            repeated: RefCell::new(None),
        }
    }

    /// Reads a value from its text.
    pub(super) fn read(&self, text: &RawValue) -> Result<Value, Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text.get());
        let read = Part(self).deserialize(&mut deserializer);
        read.map_err(|error| match (self.left.get(), self.repeated.take()) {
            (0, _) => Error::TooMany,
            (_, Some(key)) => Error::Repeated(key),
            _ => Error::Invalid(error),
        })
    }

    fn take<E: de::Error>(&self) -> Result<(), E> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        match left {
            0 => Err(E::custom("too many parts")),
            _ => Ok(()),
        }
    }
}

struct Part<'b>(&'b Budget);

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.take()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Part(self.0))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if map.contains_key(&key) {
                self.0.repeated.replace(Some(key));
                return Err(de::Error::custom("a key twice"));
            }
            map.insert(key, fields.next_value_seed(Part(self.0))?);
        }
        Ok(map.into())
    }
}

/// The fields of an object, each as its text. If a field comes twice, the last one counts.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    list: Vec<(String, &'a RawValue)>,
    /// Some field came twice.
    pub(super) repeated: bool,
}

impl<'a> Fields<'a> {
    /// The most fields of an object; OpenAI's requests have some forty.
    pub(super) const FIELDS_MAX: usize = 512;

    /// The text of a field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.list.iter().find(|(known, _)| known == name);
        found
            .map(|(_, text)| *text)
            .filter(|text| text.get() != "null")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.list.iter().map(|(name, text)| (&**name, *text))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields {
                    list: Vec::new(),
                    repeated: false,
                };
                while let Some(name) = map.next_key::<String>()? {
                    let text = map.next_value()?;
                    let count = fields.list.len();
                    match fields.list.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => (*known, fields.repeated) = (text, true),
                        None if count == Fields::FIELDS_MAX => {
                            let what = format!("it has more than {} fields", Fields::FIELDS_MAX);
                            return Err(de::Error::custom(what));
                        }
                        None => fields.list.push((name, text)),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Hands each item of an array's text to `take`, one after the other, and returns how many there were.
/// The items are not collected, because a list of them would be much larger than the text: an item of `[0,0,0]`
/// has two bytes.
///
/// # Errors
///
/// Fails with the first error of `take`, or with `other` if the text is not an array.
pub(super) fn each_item<E>(
    list: &RawValue,
    other: impl FnOnce() -> E,
    take: impl FnMut(usize, &RawValue) -> Result<(), E>,
) -> Result<usize, E> {
    let mut items = Items {
        take,
        refused: None,
    };
    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    let read = deserializer.deserialize_seq(&mut items);
    match (read, items.refused) {
        (_, Some(error)) => Err(error),
        (Ok(count), None) => Ok(count),
        (Err(_), None) => Err(other()),
    }
}

struct Items<F, E> {
    take: F,
    refused: Option<E>,
}

impl<'de, E, F: FnMut(usize, &RawValue) -> Result<(), E>> Visitor<'de> for &mut Items<F, E> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(item) = items.next_element::<&RawValue>()? {
            if let Err(error) = (self.take)(count, item) {
                self.refused = Some(error);
                return Err(de::Error::custom("refused"));
            }
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn values_are_read_as_they_are_and_their_parts_are_counted() {
        let text = r#"{"a":[1,-2,1.5,null,true,"x\n"],"b":{"c":{}}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Budget::new(100).read(raw(text)).unwrap(), value);
        assert!(matches!(
            Budget::new(10).read(raw(text)),
            Err(Error::TooMany)
        ));
        let both = Budget::new(6);
        both.read(raw("[1,2,3]")).unwrap();
        assert!(matches!(both.read(raw("[1]")), Err(Error::TooMany)));
        assert!(matches!(
            Budget::new(9).read(raw(r#"[{"a":1,"a":2}]"#)),
            Err(Error::Repeated(key)) if key == "a"
        ));
        assert!(matches!(
            Budget::new(9).read(raw(r#""\ud800""#)),
            Err(Error::Invalid(_))
        ));
    }

    #[test]
    fn fields_are_texts_and_the_last_of_a_name_counts() {
        let fields: Fields = serde_json::from_str(r#"{"a":1,"b":null,"a":[2]}"#).unwrap();
        assert_eq!(fields.get("a").unwrap().get(), "[2]");
        assert!(fields.get("b").is_none() && fields.repeated);
        assert!(serde_json::from_str::<Fields>("[]").unwrap_err().is_data());
    }
}
