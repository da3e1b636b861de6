//! Scopes of a function (PTX ISA 5.1, 7.1): every declared name gets one that is unique in the function.
//!
//! Each name keeps a stack of what it is bound to, the innermost last, and each open scope a list of what it bound:
//! looking up costs the same at any depth, except for numbered families (`%r<8>`), whose shadowed ones are searched.
//! A unique name is the name itself where the function did not use it yet, else it has a suffix with `#`.

use std::collections::{HashMap, HashSet};

use super::ParseError;
use super::cursor::{fail, shorten};

/// The deepest nesting of scopes.
const DEPTH: usize = 1024;

/// Digits of the largest index in a family.
const INDEX_DIGITS: usize = 7;

/// What a name is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// A register with 1, 2 or 4 elements.
    Register { vector: u32 },
    /// A variable in memory, or a parameter.
    Variable,
    /// A label, also of `.branchtargets` and prototypes.
    Label,
}

struct Bound {
    depth: usize,
    unique: String,
    meaning: Meaning,
}

struct Family {
    depth: usize,
    prefix: String,
    count: u32,
    vector: u32,
}

/// What a scope bound, to be undone at its end.
enum Undo<'a> {
    Name(&'a str),
    Family(&'a str),
}

/// The scopes of one function while it is read.
#[derive(Default)]
pub(super) struct Scopes<'a> {
    names: HashMap<&'a str, Vec<Bound>>,
    families: HashMap<&'a str, Vec<Family>>,
    open: Vec<Vec<Undo<'a>>>,
    /// Names that the function uses and does not declare.
    outer: HashSet<&'a str>,
    /// How often each name was declared, and 1 for those in `outer`.
    taken: HashMap<&'a str, u32>,
    /// As `taken`, for families.
    taken_families: HashMap<&'a str, u32>,
    /// Families that kept their name, with the largest count.
    plain_families: HashMap<&'a str, u32>,
    /// Names in `taken`, and families in `plain_families`, with one to seven of their last digits taken off.
    stems: HashSet<&'a str>,
}

/// A name's splits into stem and index: `%r12` is `%r1` and 2, `%r` and 12.
fn splits(name: &str) -> impl Iterator<Item = (&str, u32)> {
    let digits = name.bytes().rev().take(INDEX_DIGITS).take_while(u8::is_ascii_digit).count();
    (1..=digits).filter_map(move |count| {
        let (stem, index) = name.split_at_checked(name.len() - count)?;
        let canonical = index == "0" || !index.starts_with('0');
        let index = index.parse().ok()?;
        if canonical && !stem.is_empty() { Some((stem, index)) } else { None }
    })
}

impl<'a> Scopes<'a> {
    /// Opens a scope.
    pub fn open(&mut self, line: u32) -> Result<(), ParseError> {
        if self.open.len() >= DEPTH {
            return fail(line, format!("blocks nest deeper than {DEPTH}"));
        }
        self.open.push(Vec::new());
        Ok(())
    }

    /// Closes the innermost scope; whether one is still open.
    pub fn close(&mut self) -> bool {
        for undo in self.open.pop().unwrap_or_default() {
            match undo {
                Undo::Name(name) => drop(self.names.get_mut(name).and_then(Vec::pop)),
                Undo::Family(name) => drop(self.families.get_mut(name).and_then(Vec::pop)),
            }
        }
        !self.open.is_empty()
    }

    /// A unique name for a declaration of `name`; `module` says whether the module has that name.
    pub fn unique(&mut self, name: &'a str, module: bool) -> String {
        let family = splits(name)
            .any(|(stem, index)| self.plain_families.get(stem).is_some_and(|&count| index < count));
        let times = self.taken.entry(name).or_insert(0);
        *times += 1;
        self.stems.extend(splits(name).map(|(stem, _)| stem));
        if *times == 1 && !family && !module { name.to_string() } else { format!("{name}#{times}") }
    }

    /// A unique prefix for a declaration of `name<count>`. The registers are prefix and index.
    fn unique_family(&mut self, name: &'a str, count: u32) -> String {
        let longer = self.stems.contains(name);
        let shorter = splits(name).any(|(stem, _)| self.plain_families.contains_key(stem));
        let times = self.taken_families.entry(name).or_insert(0);
        *times += 1;
        if *times == 1 && !longer && !shorter {
            self.plain_families.insert(name, count);
            self.stems.extend(splits(name).map(|(stem, _)| stem));
            name.to_string()
        } else {
            format!("{name}#{times}#")
        }
    }

    /// Binds a name in the innermost scope to a unique name.
    pub fn bind(
        &mut self,
        name: &'a str,
        unique: String,
        meaning: Meaning,
        line: u32,
    ) -> Result<(), ParseError> {
        let depth = self.open.len();
        let earlier = self.names.get(name).and_then(|stack| stack.last());
        if name == "_" {
            return fail(line, "`_` is no name for a declaration");
        }
        let of_family = splits(name).any(|(stem, index)| {
            let family = self.families.get(stem).and_then(|stack| stack.last());
            family.is_some_and(|family| family.depth == depth && index < family.count)
        });
        if of_family || earlier.is_some_and(|bound| bound.depth == depth) {
            return fail(line, format!("`{}` is declared twice in one scope", shorten(name)));
        }
        self.names.entry(name).or_default().push(Bound { depth, unique, meaning });
        if let Some(scope) = self.open.last_mut() {
            scope.push(Undo::Name(name));
        }
        Ok(())
    }

    /// Declares a family of registers in the innermost scope; its unique prefix.
    pub fn family(
        &mut self,
        name: &'a str,
        count: u32,
        vector: u32,
        line: u32,
    ) -> Result<String, ParseError> {
        let depth = self.open.len();
        let earlier = self.families.get(name).and_then(|stack| stack.last());
        if earlier.is_some_and(|family| family.depth == depth) {
            return fail(line, format!("`{}<{count}>` is declared twice in one scope", shorten(name)));
        }
        let prefix = self.unique_family(name, count);
        self.families.entry(name).or_default().push(Family { depth, prefix: prefix.clone(), count, vector });
        if let Some(scope) = self.open.last_mut() {
            scope.push(Undo::Family(name));
        }
        Ok(prefix)
    }

    /// What a name means here; None where nothing in the function that is visible here declares it.
    pub fn find(&self, name: &str, line: u32) -> Result<Option<(String, Meaning)>, ParseError> {
        let single = self.names.get(name).and_then(|stack| stack.last());
        let mut depth = single.map_or(0, |bound| bound.depth);
        let mut found = single.map(|bound| (bound.unique.clone(), bound.meaning));
        for (stem, index) in splits(name) {
            let stack = self.families.get(stem).map(Vec::as_slice).unwrap_or_default();
            let Some(family) = stack.iter().rev().find(|family| index < family.count) else { continue };
            if family.depth == depth {
                return fail(line, format!("`{}` is declared twice in one scope", shorten(name)));
            }
            if family.depth > depth {
                depth = family.depth;
                let meaning = Meaning::Register { vector: family.vector };
                found = Some((format!("{}{index}", family.prefix), meaning));
            }
        }
        Ok(found)
    }

    /// Notes that the function uses a name that nothing visible declares, so that no later declaration takes it.
    /// False where a declaration that is not visible here has it already.
    pub fn use_outer(&mut self, name: &'a str) -> bool {
        if self.outer.contains(name) {
            return true;
        }
        if self.taken.contains_key(name) {
            return false;
        }
        self.taken.insert(name, 1);
        self.outer.insert(name)
    }
}
