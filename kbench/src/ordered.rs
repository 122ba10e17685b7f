//! A table of a TOML file whose order means something: tensors in the order of a reference's arguments, values in the
//! order in which a reader meets them. Leaves to others: what the keys are.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys and values as they stand in the file; no key twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered<T>(Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &T)> + Clone {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Gives a key a value: in its place where it has one, else at the end.
    pub fn set(&mut self, key: &str, value: T) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }
}

impl<T> FromIterator<(String, T)> for Ordered<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(items: I) -> Self {
        let mut ordered = Ordered::default();
        items.into_iter().for_each(|(key, value)| ordered.set(&key, value));
        ordered
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut found = Ordered::default();
                while let Some(key) = map.next_key::<String>()? {
                    if found.get(&key).is_some() {
                        return Err(A::Error::custom(format!("`{key}` is given twice")));
                    }
                    found.0.push((key, map.next_value()?));
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Table(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_toml_and_json() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            t: Ordered<u32>,
        }
        let file: File = toml::from_str("[t]\nz = 1\na = 2\nm = 3").unwrap();
        assert_eq!(file.t.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
        assert_eq!(serde_json::to_string(&file).unwrap(), r#"{"t":{"z":1,"a":2,"m":3}}"#);
        assert_eq!(serde_json::from_str::<File>(r#"{"t":{"z":1,"a":2,"m":3}}"#).unwrap(), file);
        assert_eq!(toml::from_str::<File>(&toml::to_string(&file).unwrap()).unwrap(), file);
        let twice = serde_json::from_str::<File>(r#"{"t":{"z":1,"z":2}}"#).unwrap_err();
        assert!(twice.to_string().contains("`z` is given twice"));
    }

    #[test]
    fn a_key_keeps_its_place() {
        let mut table: Ordered<u32> = [("b".to_owned(), 1), ("a".to_owned(), 2)].into_iter().collect();
        table.set("b", 3);
        table.set("c", 4);
        assert_eq!(table.iter().collect::<Vec<_>>(), [("b", &3), ("a", &2), ("c", &4)]);
        assert_eq!((table.get("a"), table.get("x"), table.len()), (Some(&2), None, 3));
    }
}
