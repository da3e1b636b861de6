//! A place in the tokens of a text, and the small steps that every part of the parser takes from it.

use super::ParseError;
use super::lexer::{Kind, Token, tokens};

/// Tokens and a place among them; the last token is `End`, and the place never passes it.
pub(super) struct Cursor<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

const END: Token = Token { kind: Kind::End, start: 0, end: 0, line: 0 };

impl<'a> Cursor<'a> {
    pub fn new(source: &'a str) -> Result<Self, ParseError> {
        Ok(Cursor { source, tokens: tokens(source)?, at: 0 })
    }

    /// The index of the current token.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The token at an index; the end beyond the last.
    pub fn token(&self, index: usize) -> Token {
        self.tokens.get(index).or(self.tokens.last()).copied().unwrap_or(END)
    }

    /// A token's text.
    pub fn text(&self, token: Token) -> &'a str {
        self.source.get(token.start as usize..token.end as usize).unwrap_or_default()
    }

    /// The current token.
    pub fn peek(&self) -> Token {
        self.token(self.at)
    }

    /// The current token's kind.
    pub fn kind(&self) -> Kind {
        self.peek().kind
    }

    /// The current token's text; empty at the end.
    pub fn peek_text(&self) -> &'a str {
        self.text(self.peek())
    }

    /// The current token's line.
    pub fn line(&self) -> u32 {
        self.peek().line
    }

    /// Takes the current token.
    pub fn advance(&mut self) -> Token {
        let token = self.peek();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    /// Whether the token at an index is this word, directive or mark.
    pub fn is_at(&self, index: usize, text: &str) -> bool {
        let token = self.token(index);
        matches!(token.kind, Kind::Word | Kind::Dotted | Kind::Mark) && self.text(token) == text
    }

    /// Whether the current token is this word, directive or mark.
    pub fn is(&self, text: &str) -> bool {
        self.is_at(self.at, text)
    }

    /// Whether the token after the current one is this word, directive or mark.
    pub fn next_is(&self, text: &str) -> bool {
        self.is_at(self.at + 1, text)
    }

    /// Takes the current token if it is this one.
    pub fn accept(&mut self, text: &str) -> bool {
        let found = self.is(text);
        if found {
            self.advance();
        }
        found
    }

    /// Takes this word, directive or mark.
    pub fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if self.accept(text) { Ok(()) } else { self.unexpected(&format!("`{text}`")) }
    }

    /// Takes an identifier.
    pub fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.kind() {
            Kind::Word => {
                let token = self.advance();
                Ok(self.text(token))
            }
            _ => self.unexpected(what),
        }
    }

    /// Takes a string, without its quotes.
    pub fn string(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.kind() {
            Kind::Text => {
                let token = self.advance();
                let text = self.text(token);
                Ok(text.get(1..text.len().saturating_sub(1)).unwrap_or_default())
            }
            _ => self.unexpected(what),
        }
    }

    /// Fails at the current token: what was found, what was expected.
    pub fn unexpected<T>(&self, expected: &str) -> Result<T, ParseError> {
        let found = match self.kind() {
            Kind::End => "the end of the text".to_string(),
            Kind::Text => format!("the string {}", shorten(self.peek_text())),
            _ => format!("`{}`", shorten(self.peek_text())),
        };
        self.fail(format!("found {found}, expected {expected}"))
    }

    /// Fails at the current token.
    pub fn fail<T>(&self, detail: impl Into<String>) -> Result<T, ParseError> {
        fail(self.line(), detail)
    }
}

/// Fails at a line.
pub(super) fn fail<T>(line: u32, detail: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError { line, detail: detail.into() })
}

/// A text cut to what a message can hold.
pub(super) fn shorten(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push_str("...");
    }
    cut
}
