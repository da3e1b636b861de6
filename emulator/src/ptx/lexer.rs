//! Text to tokens. A token is a place in the text; comments and white space leave none.

use super::ParseError;

/// The kinds of token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// An identifier: `add`, `%r1`, `$L__BB0_2`, `_`.
    Word,
    /// A directive or qualifier with its dot: `.global`, `.L2::128B`, `.x`.
    Dotted,
    /// Starts with a digit; not yet checked to be a number.
    Number,
    /// A string, quotes included.
    Text,
    /// Punctuation, one or two characters.
    Mark,
    /// The end of the text.
    End,
}

/// A token: where it lies in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Line, from 1.
    pub line: u32,
}

/// Whether a byte can continue an identifier (PTX ISA 4.4: followsym).
fn follows(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
}

/// Splits a text into tokens, an `End` last.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, ParseError> {
    if u32::try_from(source.len()).is_err() {
        return Err(ParseError { line: 0, detail: "the text is longer than 4 GiB".into() });
    }
    // Real PTX has a token every five bytes or so.
    let mut tokens = Vec::with_capacity(source.len() / 5 + 1);
    let mut lexer = Lexer { source, at: 0, line: 1 };
    loop {
        let token = lexer.next()?;
        tokens.push(token);
        if token.kind == Kind::End {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    /// The byte `ahead` of the current place; 0 past the end (a NUL in the text is no token either).
    fn byte(&self, ahead: usize) -> u8 {
        self.source.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, condition: impl Fn(u8) -> bool) {
        let rest = self.source.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|&byte| !condition(byte)).unwrap_or(rest.len());
    }

    fn error<T>(&self, line: u32, detail: String) -> Result<T, ParseError> {
        Err(ParseError { line, detail })
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            match (self.byte(0), self.byte(1)) {
                (b'\n', _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (b' ' | b'\t' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'/', b'/') => self.skip_while(|byte| byte != b'\n'),
                (b'/', b'*') => {
                    let opened = self.line;
                    let body = self.source.get(self.at + 2..).unwrap_or_default();
                    let Some(length) = body.find("*/") else {
                        return self.error(opened, "the comment `/*` has no end".into());
                    };
                    let newlines = body.bytes().take(length).filter(|&byte| byte == b'\n').count();
                    // At most the text's length, which fits.
                    self.line += u32::try_from(newlines).unwrap_or(0);
                    self.at += length + 4;
                }
                _ => return Ok(()),
            }
        }
    }

    fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_blank()?;
        let (start, line) = (self.at, self.line);
        let kind = self.scan()?;
        let place = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
        Ok(Token { kind, start: place(start), end: place(self.at), line })
    }

    /// Moves past one token.
    fn scan(&mut self) -> Result<Kind, ParseError> {
        if self.at >= self.source.len() {
            return Ok(Kind::End);
        }
        let (first, second) = (self.byte(0), self.byte(1));
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.skip_while(follows),
            b'%' | b'$' if follows(second) => {
                self.at += 1;
                self.skip_while(follows);
            }
            b'.' if follows(second) => {
                self.at += 1;
                self.skip_while(follows);
                while self.byte(0) == b':' && self.byte(1) == b':' && follows(self.byte(2)) {
                    self.at += 2;
                    self.skip_while(follows);
                }
                return Ok(Kind::Dotted);
            }
            b'0'..=b'9' => {
                self.number();
                return Ok(Kind::Number);
            }
            b'"' => {
                self.text()?;
                return Ok(Kind::Text);
            }
            _ => return self.mark(first, second),
        }
        Ok(Kind::Word)
    }

    /// Digits, a fraction, an exponent, and whatever letters follow at once (`0x1F`, `12U`, `1.5e-3`).
    fn number(&mut self) {
        let start = self.at;
        self.skip_while(follows);
        let prefixed = self.source.as_bytes().get(start + 1).is_some_and(|b| b"xXfFdDbB".contains(b));
        if prefixed && self.source.as_bytes().get(start) == Some(&b'0') {
            return;
        }
        if self.byte(0) == b'.' && (self.byte(1).is_ascii_digit() || !follows(self.byte(1))) {
            self.at += 1;
            self.skip_while(follows);
        }
        let last = self.source.as_bytes().get(self.at - 1).copied().unwrap_or(0);
        if matches!(last, b'e' | b'E') && matches!(self.byte(0), b'+' | b'-') && self.byte(1).is_ascii_digit()
        {
            self.at += 1;
            self.skip_while(follows);
        }
    }

    /// A string; a backslash takes the next character with it.
    fn text(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        loop {
            match self.byte(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\n' => return self.error(self.line, "the string has no end on its line".into()),
                0 if self.at >= self.source.len() => {
                    return self.error(self.line, "the string has no end".into());
                }
                b'\\' if self.byte(1) != b'\n' && self.at + 1 < self.source.len() => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn mark(&mut self, first: u8, second: u8) -> Result<Kind, ParseError> {
        let two = matches!(
            (first, second),
            (b'<', b'<' | b'=')
                | (b'>', b'>' | b'=')
                | (b'=', b'=')
                | (b'!', b'=')
                | (b'&', b'&')
                | (b'|', b'|')
        );
        if two {
            self.at += 2;
        } else if b";,(){}[]:@!|&+-*/%<>=~^?".contains(&first) {
            self.at += 1;
        } else {
            let found = self.source.get(self.at..).and_then(|rest| rest.chars().next());
            let found = found.map_or_else(String::new, |c| c.escape_default().to_string());
            return self
                .error(self.line, format!("found the character `{found}`, which starts nothing in PTX"));
        }
        Ok(Kind::Mark)
    }
}
