//! Which features of an encoder are looked at, and which columns of them a linear layer gets.

use engine::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Where features are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The encoder's own features.
    Own,
    /// Those behind a block, counted from 1: `Encoder::block_features`.
    Block(usize),
    /// Those behind each of so many last blocks, side by side. Of a ViT class token and average of the patches, of a ResNet
    /// the average over places of each stage.
    LastBlocks(usize),
}

/// What a part of a row of features is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A ViT's class token.
    Class,
    /// The average of a ViT's patches, or over the places of a ResNet's map.
    Average,
}

/// Some columns of [`Source::LastBlocks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The block behind which they are, from 1.
    pub block: usize,
    /// What they are.
    pub token: Token,
    /// Where they lie in a row.
    pub columns: Range<usize>,
}

/// What a linear layer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is in words; empty where there is one input alone.
    pub name: String,
    /// Its columns, in this order.
    pub columns: Vec<Range<usize>>,
}

impl Input {
    /// Number of values.
    pub fn dim(&self) -> usize {
        self.columns.iter().map(|range| range.len()).sum()
    }
}

/// Parts as text, for the metadata of a file: `BLOCK class|average START END`, separated by commas.
pub fn write(parts: &[Part]) -> String {
    let token = |part: &Part| if part.token == Token::Class { "class" } else { "average" };
    let text = |p: &Part| format!("{} {} {} {}", p.block, token(p), p.columns.start, p.columns.end);
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What [`write`] wrote into the file at `path`.
pub fn read(text: &str, path: &Path) -> Result<Vec<Part>> {
    let part = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[block, token, start, end] = words.as_slice() else { return None };
        let token = match token {
            "class" => Token::Class,
            "average" => Token::Average,
            _ => return None,
        };
        Some(Part { block: block.parse().ok()?, token, columns: start.parse().ok()?..end.parse().ok()? })
    };
    let parts: Option<Vec<Part>> = text.split(',').map(part).collect();
    parts.ok_or_else(|| {
        Error::format("read features", path, format!("'blocks' in its metadata is not understood: {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_written() {
        let parts = vec![
            Part { block: 11, token: Token::Class, columns: 0..8 },
            Part { block: 12, token: Token::Average, columns: 8..16 },
        ];
        let path = Path::new("f.safetensors");
        assert_eq!(read(&write(&parts), path).unwrap(), parts);
        for wrong in ["", "1 class 0", "1 mean 0 8", "x class 0 8"] {
            assert!(read(wrong, path).unwrap_err().message().contains("blocks"), "{wrong}");
        }
    }
}
