//! The one error type of the project: what failed, with which arguments, what must hold, and where.

use crate::Tensor;
use std::fmt;
use std::panic::Location;

/// The result of every fallible function in the project.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong. The command line maps [`ErrorKind::Usage`] to exit code 2, the rest to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Shapes do not fit together.
    Shape,
    /// An element type is not what the operation takes.
    DType,
    /// Arguments lie on different devices, or the device is not there.
    Device,
    /// A number or a name is outside what is allowed.
    Value,
    /// Reading or writing a file failed.
    Io,
    /// A file's content is not what its format says.
    Format,
    /// The autograd graph cannot do this.
    Graph,
    /// A buffer was overrun, or memory ran out.
    Memory,
    /// The command line or the configuration is wrong.
    Usage,
    /// The user asked to stop.
    Interrupted,
}

/// One argument of the failed operation, as shown in the message.
#[derive(Debug, Clone)]
struct Argument {
    name: String,
    what: String,
}

/// An error: operation, kind, arguments, the rule that was broken, and the caller's line.
///
/// It is one pointer wide, so that `Result<T>` stays small.
pub struct Error(Box<Inner>);

struct Inner {
    operation: String,
    kind: ErrorKind,
    message: String,
    arguments: Vec<Argument>,
    location: &'static Location<'static>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in `operation`. `message` says what must hold and, where it can, what to do.
    #[track_caller]
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            operation: operation.into(),
            kind,
            message: message.into(),
            arguments: Vec::new(),
            location: Location::caller(),
            source: None,
        }))
    }

    /// Shapes that do not fit.
    #[track_caller]
    pub fn shape(operation: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Shape, operation, message)
    }

    /// A wrong element type.
    #[track_caller]
    pub fn dtype(operation: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::DType, operation, message)
    }

    /// A value outside what is allowed.
    #[track_caller]
    pub fn value(operation: impl Into<String>, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Value, operation, message)
    }

    /// A file that could not be read or written.
    #[track_caller]
    pub fn io(operation: impl Into<String>, path: &std::path::Path, source: std::io::Error) -> Error {
        let mut error = Error::new(ErrorKind::Io, operation, format!("{}: {source}", path.display()));
        error.0.source = Some(Box::new(source));
        error
    }

    /// A file whose content is wrong.
    #[track_caller]
    pub fn format(operation: impl Into<String>, path: &std::path::Path, message: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Format, operation, format!("{}: {message}", path.display()))
    }

    /// Adds an argument's name, shape, dtype and device to the message.
    pub fn argument(mut self, name: &str, tensor: &Tensor) -> Error {
        self.0.arguments.push(Argument {
            name: name.into(),
            what: format!("{:?} {} on {}", tensor.shape(), tensor.dtype(), tensor.device()),
        });
        self
    }

    /// Adds an argument that is not a tensor.
    pub fn with(mut self, name: &str, what: impl fmt::Debug) -> Error {
        self.0.arguments.push(Argument { name: name.into(), what: format!("{what:?}") });
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// What must hold and what to do, without operation, arguments and line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The line that called the failed operation.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)?;
        if !self.0.arguments.is_empty() {
            write!(f, " (")?;
            for (i, a) in self.0.arguments.iter().enumerate() {
                write!(f, "{}{}: {}", if i > 0 { ", " } else { "" }, a.name, a.what)?;
            }
            write!(f, ")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{:?} at {}]", self.0.kind, self.0.location)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_operation_arguments_and_line() {
        let x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap();
        let e = Error::shape("matmul", "the inner sizes must be equal").argument("x", &x).with("k", 3);
        let text = format!("{e}");
        assert_eq!(text, "matmul: the inner sizes must be equal (x: [2] f32 on cpu, k: 3)");
        assert!(format!("{e:?}").contains("error.rs"), "{e:?}");
        assert_eq!(std::mem::size_of::<Error>(), std::mem::size_of::<usize>());
    }
}
