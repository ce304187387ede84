//! Lists in untrusted files: what is read of one is bounded while it is read, since a few bytes of a file may stand for far
//! more memory.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// Reads a list of at most `MOST` entries; for `#[serde(deserialize_with = "bounded::list::<MOST, _, _>")]`.
///
/// # Errors
/// If there are more, or one of them cannot be read.
pub fn list<'de, const MOST: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::custom(format_args!("a list has more than {MOST} entries")));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Words {
        #[serde(deserialize_with = "list::<3, _, _>")]
        words: Vec<String>,
        after: u8,
    }

    #[test]
    fn a_list_is_read_up_to_its_most_entries_and_no_further() {
        for count in 0..6 {
            let written = Words { words: vec![String::new(); count], after: 7 };
            let read = postcard::from_bytes::<Words>(&postcard::to_allocvec(&written).unwrap());
            assert_eq!(read.ok(), (count <= 3).then_some(written), "{count}");
        }
        let told = serde_json::from_str::<Words>(r#"{"words": ["", "", "", ""], "after": 7}"#).unwrap_err();
        assert!(told.to_string().starts_with("a list has more than 3 entries"), "{told}");
    }
}
