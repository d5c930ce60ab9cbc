//! Sections and fields of a TOML text, each with its line, and what is in none of our tables.

use std::path::Path;

use ringway_core::words;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{At, ConfigError};

/// A kind of section, as data: its fields and what each takes, as the end of "it takes ...".
pub(super) struct Kind {
    /// As it stands in a file: `[[peer]]`.
    pub(super) title: &'static str,
    /// Its fields.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// Words that others use, and ours for them.
    pub(super) others: &'static [(&'static str, &'static str)],
}

/// The text of a file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn at(self, byte: usize) -> At {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        At { path: self.path.to_owned(), line }
    }

    /// Reads the text as TOML.
    pub(super) fn document(self) -> Result<DeTable<'a>, ConfigError> {
        let parsed = DeTable::parse(self.text).map_err(|error| {
            let at = self.at(error.span().map_or(0, |span| span.start));
            ConfigError::Syntax { at, message: error.message().to_owned() }
        });
        Ok(parsed?.into_inner())
    }

    /// The sections of a kind, of which the document may have at most `most`.
    pub(super) fn sections(
        self,
        document: &'a DeTable<'a>,
        kind: &'static Kind,
        most: usize,
    ) -> Result<Vec<Section<'a>>, ConfigError> {
        let name = kind.title.trim_matches(['[', ']']);
        let Some((key, value)) = document.iter().find(|(key, _)| *key.get_ref() == name) else {
            return Ok(Vec::new());
        };
        let not_one = |at| {
            let given = "something else".to_owned();
            let wanted = if most == 1 { "fields below [it]" } else { "sections, each [[so]]" };
            ConfigError::Value { at, field: kind.title, given, wanted }
        };
        let at = self.at(key.span().start);
        let section = |value: &'a Spanned<DeValue<'a>>, at: At| match value.get_ref() {
            DeValue::Table(table) => {
                let section = Section { source: self, kind, table, at };
                section.check_names().map(|()| section)
            }
            _ => Err(not_one(at)),
        };
        match value.get_ref() {
            DeValue::Table(_) if most == 1 => Ok(vec![section(value, at)?]),
            DeValue::Array(all) if most > 1 => {
                if let Some(beyond) = all.get(most) {
                    let at = self.at(beyond.span().start);
                    return Err(ConfigError::TooMany { at, what: kind.title, most });
                }
                all.iter().map(|one| section(one, self.at(one.span().start))).collect()
            }
            _ => Err(not_one(at)),
        }
    }

    /// Complains about the first section that is of none of these kinds.
    pub(super) fn check_sections(
        self,
        document: &DeTable<'_>,
        kinds: &[&'static Kind],
    ) -> Result<(), ConfigError> {
        let names = kinds.iter().map(|kind| kind.title.trim_matches(['[', ']']));
        let known: Vec<&'static str> = names.collect();
        let Some((name, start)) = first_unknown(document, &known) else { return Ok(()) };
        // A field above all sections is probably one of the first.
        let mut fields = kinds.iter().flat_map(|kind| kind.fields.iter().map(move |f| (kind, f.0)));
        let home = fields.find(|(_, field)| *field == name);
        let meant = match home {
            Some((kind, _)) => Some(kind.title),
            None => words::nearest(name, known.iter().copied()),
        };
        let (at, name) = (self.at(start), name.to_owned());
        let section = if home.is_some() { "the top of the file" } else { "the file" };
        Err(ConfigError::Unknown { at, section, name, meant, known })
    }
}

/// The first name in the text that is not known, and where it stands.
fn first_unknown<'a>(table: &'a DeTable<'_>, known: &[&str]) -> Option<(&'a str, usize)> {
    let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
    let first = unknown.min_by_key(|key| key.span().start)?;
    Some((first.get_ref().as_ref(), first.span().start))
}

/// One section of a file.
pub(super) struct Section<'a> {
    source: Source<'a>,
    kind: &'static Kind,
    table: &'a DeTable<'a>,
    /// Where it begins.
    pub(super) at: At,
}

/// One value: its text, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) at: At,
    pub(super) field: &'static str,
    wanted: &'static str,
}

impl Item {
    /// The complaint that this is not what the field takes.
    pub(super) fn wrong(&self) -> ConfigError {
        let (at, given) = (self.at.clone(), self.text.clone());
        ConfigError::Value { at, field: self.field, given, wanted: self.wanted }
    }

    /// Reads it.
    pub(super) fn read<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        read(&self.text).ok_or_else(|| self.wrong())
    }
}

impl<'a> Section<'a> {
    fn check_names(&self) -> Result<(), ConfigError> {
        let known: Vec<&'static str> = self.kind.fields.iter().map(|field| field.0).collect();
        let Some((name, start)) = first_unknown(self.table, &known) else { return Ok(()) };
        let word = name.to_lowercase().replace('-', "_");
        let other = self.kind.others.iter().find(|(theirs, _)| *theirs == word);
        let near = || words::nearest(name, known.iter().copied());
        let meant = other.map(|(_, ours)| *ours).or_else(near);
        let (at, name) = (self.source.at(start), name.to_owned());
        Err(ConfigError::Unknown { at, section: self.kind.title, name, meant, known })
    }

    fn field(&self, name: &str) -> (&'static str, &'static str) {
        let field = self.kind.fields.iter().find(|field| field.0 == name);
        *field.unwrap_or_else(|| panic!("{name} is not in the table of {}", self.kind.title))
    }

    fn value(&self, name: &str) -> Option<(&'a Spanned<DeValue<'a>>, At)> {
        let (key, value) = self.table.iter().find(|(key, _)| *key.get_ref() == name)?;
        Some((value, self.source.at(key.span().start)))
    }

    fn item(&self, name: &str, value: &DeValue<'_>, at: At) -> Result<Item, ConfigError> {
        let (field, wanted) = self.field(name);
        let plain = match value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            DeValue::Boolean(word) => Ok(word.to_string()),
            other => Err(other.type_str().to_owned()),
        };
        match plain {
            Ok(text) => Ok(Item { text, at, field, wanted }),
            Err(given) => Err(ConfigError::Value { at, field, given, wanted }),
        }
    }

    /// The field, if it is there.
    pub(super) fn one(&self, name: &str) -> Result<Option<Item>, ConfigError> {
        let Some((value, at)) = self.value(name) else { return Ok(None) };
        self.item(name, value.get_ref(), at).map(Some)
    }

    /// The field, which must be there.
    pub(super) fn must(&self, name: &str) -> Result<Item, ConfigError> {
        self.one(name)?.ok_or_else(|| self.missing(name))
    }

    /// The complaint that a field is not there.
    pub(super) fn missing(&self, name: &str) -> ConfigError {
        let (field, wanted) = self.field(name);
        let (at, section) = (self.at.clone(), self.kind.title);
        ConfigError::Missing { at, section, field, wanted }
    }

    /// The field as a list of at most `most`; a single value is a list of one.
    pub(super) fn list(&self, name: &str, most: usize) -> Result<Vec<Item>, ConfigError> {
        let Some((value, at)) = self.value(name) else { return Ok(Vec::new()) };
        let DeValue::Array(all) = value.get_ref() else {
            return Ok(vec![self.item(name, value.get_ref(), at)?]);
        };
        if let Some(beyond) = all.get(most) {
            let (at, what) = (self.source.at(beyond.span().start), self.field(name).0);
            return Err(ConfigError::TooMany { at, what, most });
        }
        let item = |one: &Spanned<DeValue<'_>>| {
            self.item(name, one.get_ref(), self.source.at(one.span().start))
        };
        all.iter().map(item).collect()
    }

    /// Where the field is, or where the section begins.
    pub(super) fn at_of(&self, name: &str) -> At {
        self.value(name).map_or_else(|| self.at.clone(), |(_, at)| at)
    }

    /// The field as true or false.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.one(name)? {
            Some(item) => item.read(|text| text.parse().ok()),
            None => Ok(default),
        }
    }

    /// The field as a whole number within bounds.
    pub(super) fn within(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        match self.one(name)? {
            Some(item) => {
                item.read(|text| words::number(text).filter(|number| range.contains(number)))
            }
            None => Ok(default),
        }
    }
}
