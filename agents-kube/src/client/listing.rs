//! The answer to a list, taken apart while it arrives: each object is handed on as soon as its last byte is there, so
//! that what is held is one object and never a page.
//!
//! Pure: bytes in, objects out. API servers write custom resources with their keys in order of the alphabet, so what
//! says where a page ends comes after its items; built-in kinds have it before them.

use serde::Deserialize;

/// Longest object of a list, and most of what stands around its objects: an object of etcd's largest size, escaped, with
/// room.
const MAX_OBJECT: usize = 16 * 1024 * 1024;

/// What stands around the objects of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What the document says that it is.
    pub(super) kind: String,
    /// Version the whole list was read at.
    pub(super) resource_version: String,
    /// Asks for the next page.
    pub(super) next: Option<String>,
}

/// Why an answer is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListingError {
    /// An object is larger than any that can be stored.
    #[error("an object of the list is larger than {MAX_OBJECT} bytes")]
    TooLarge,
    /// It ended before the list did.
    #[error("the answer ended early")]
    CutShort,
    /// What stands around the objects is not that of a list.
    #[error("the answer is no list")]
    NotAList(#[source] serde_json::Error),
}

/// Where in the answer the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Around the items.
    Frame,
    /// In the array of items, between two of them.
    Between,
    /// In an item.
    Item,
}

/// Takes the answer to a list apart.
#[derive(Debug)]
pub(super) struct Listing {
    place: Place,
    /// Open brackets around the next byte.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last string at the top of the list object, and whether it was ended by a colon: its key.
    word: Vec<u8>,
    is_key: bool,
    frame: Vec<u8>,
    item: Vec<u8>,
}

/// Depth of the list object's own keys.
const TOP: usize = 1;
/// Depth of what stands in the array of items.
const ITEMS: usize = 2;

impl Listing {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Frame,
            depth: 0,
            in_string: false,
            escaped: false,
            word: Vec::new(),
            is_key: false,
            frame: Vec::new(),
            item: Vec::new(),
        }
    }

    /// Takes in what has arrived and hands on each object that is complete by it.
    pub(super) fn push(&mut self, bytes: &[u8], mut object: impl FnMut(&[u8])) -> Result<(), ListingError> {
        let mut rest = bytes;
        while let [byte, ..] = *rest {
            // Most bytes are the inside of a string of an object: they are taken at once.
            if self.place == Place::Item && self.in_string && !self.escaped {
                let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len());
                if plain > 0 {
                    self.item.extend_from_slice(&rest[..plain]);
                    rest = &rest[plain..];
                    if self.item.len() > MAX_OBJECT {
                        return Err(ListingError::TooLarge);
                    }
                    continue;
                }
            }
            self.byte(byte, &mut object)?;
            rest = &rest[1..];
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8, object: &mut impl FnMut(&[u8])) -> Result<(), ListingError> {
        if self.in_string {
            self.keep(byte)?;
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            } else if self.place == Place::Frame && self.depth == TOP {
                self.word.push(byte);
            }
            return Ok(());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.place == Place::Frame && self.depth == TOP {
                    self.word.clear();
                    self.is_key = false;
                }
                self.keep(byte)
            }
            b':' if self.depth == TOP => {
                self.is_key = true;
                self.keep(byte)
            }
            b'{' | b'[' => {
                if self.place == Place::Between {
                    self.place = Place::Item;
                }
                let opens_items = self.place == Place::Frame
                    && self.depth == TOP
                    && byte == b'['
                    && self.is_key
                    && self.word == b"items";
                self.keep(byte)?;
                self.depth += 1;
                if opens_items {
                    self.place = Place::Between;
                }
                Ok(())
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.place == Place::Between {
                    self.place = Place::Frame;
                }
                self.keep(byte)?;
                if self.place == Place::Item && self.depth == ITEMS {
                    object(&self.item);
                    self.item.clear();
                    self.place = Place::Between;
                }
                Ok(())
            }
            // Between two objects stand commas and white space, and anything else is no object.
            _ if self.place == Place::Between => Ok(()),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), ListingError> {
        let to = match self.place {
            Place::Item => &mut self.item,
            Place::Frame | Place::Between => &mut self.frame,
        };
        to.push(byte);
        if to.len() > MAX_OBJECT { Err(ListingError::TooLarge) } else { Ok(()) }
    }

    /// The answer has ended.
    pub(super) fn end(self) -> Result<Frame, ListingError> {
        if self.place != Place::Frame || self.depth > 0 || self.in_string {
            return Err(ListingError::CutShort);
        }
        let List { kind, metadata: ListMeta { resource_version, next } } =
            serde_json::from_slice(&self.frame).map_err(ListingError::NotAList)?;
        Ok(Frame { kind, resource_version, next: next.filter(|token| !token.is_empty()) })
    }
}

#[derive(Deserialize)]
struct List {
    kind: String,
    metadata: ListMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn take(text: &str, sizes: &[usize]) -> Result<(Vec<Value>, Frame), ListingError> {
        let (mut listing, mut objects, mut rest) = (Listing::new(), Vec::new(), text.as_bytes());
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            listing.push(now, |object| objects.push(serde_json::from_slice(object).expect("an object")))?;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        Ok((objects, listing.end()?))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop_oneof![Just("items".to_owned()), Just("\"]}\\".to_owned()), any::<String>()].prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(prop_oneof![Just("items".to_owned()), any::<String>()], inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map(prop_oneof![Just("items".to_owned()), any::<String>()], value(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn objects_and_frame_are_those_of_the_whole_text(
            items in prop::collection::vec(object(), 0..6),
            extra in value(),
            sizes in prop::collection::vec(1_usize..40, 1..5),
            pretty in any::<bool>(),
            first in any::<bool>(),
        ) {
            let metadata = json!({"resourceVersion": "7", "continue": "next", "items": [{"a": extra}]});
            let text = |value: &Value| if pretty { format!("{value:#}") } else { value.to_string() };
            let (items_text, metadata_text) = (text(&Value::from(items.clone())), text(&metadata));
            let list = if first {
                format!("{{\"kind\":\"items\",\"metadata\":{metadata_text},\"items\" : {items_text}}}\n")
            } else {
                format!("{{\"apiVersion\":\"v1\",\"items\":{items_text},\"kind\":\"L\",\"metadata\":{metadata_text}}}")
            };
            let (objects, frame) = take(&list, &sizes).expect("a list");
            let kind = if first { "items" } else { "L" }.to_owned();
            prop_assert_eq!(objects, items);
            prop_assert_eq!(frame, Frame { kind, resource_version: "7".to_owned(), next: Some("next".to_owned()) });
        }

        #[test]
        fn a_list_that_is_cut_anywhere_is_no_list(at in 0_usize..73, sizes in prop::collection::vec(1_usize..9, 1..4)) {
            let list = r#"{"items":[{"a":"]}"},{"b":{"c":[1]}}],"metadata":{"resourceVersion":"7"}}"#;
            prop_assert!(at < list.len());
            prop_assert!(take(&list[..at], &sizes).is_err());
        }

        #[test]
        fn no_bytes_end_it(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\":,\\items".to_vec())], 0..200)) {
            let mut listing = Listing::new();
            if listing.push(&bytes, |_| {}).is_ok() {
                let _ = listing.end();
            }
        }
    }

    #[test]
    fn an_absent_or_empty_array_has_no_objects() {
        for list in ["", r#","items":null"#, r#","items":[]"#] {
            let list = format!(r#"{{"kind":"L","metadata":{{"resourceVersion":"7","continue":""}}{list}}}"#);
            let (objects, frame) = take(&list, &[3]).expect("a list");
            assert_eq!((objects.len(), frame.next), (0, None), "{list}");
        }
        for document in [r#"{"metadata":{"resourceVersion":"7"}}"#, r#"{"kind":"L","metadata":{}}"#, r#"{"kind":"L"}"#]
        {
            assert!(matches!(take(document, &[3]), Err(ListingError::NotAList(_))), "{document}");
        }
        assert!(matches!(take("<html>400</html>", &[5]), Err(ListingError::NotAList(_))));
    }

    #[test]
    fn an_object_has_a_bound() {
        let mut listing = Listing::new();
        listing.push(br#"{"items":[{"a":""#, |_| {}).expect("the beginning of a list");
        let chunk = vec![b'x'; 1024 * 1024];
        let refused = (0..=16).map(|_| listing.push(&chunk, |_| {})).find(Result::is_err);
        assert!(matches!(refused, Some(Err(ListingError::TooLarge))));
        assert!(listing.item.len() <= MAX_OBJECT + chunk.len());
    }
}
