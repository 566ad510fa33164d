//! Why a program that is there cannot be executed: the system's words for it name the program, also when it is the
//! program's interpreter that is missing.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use nix::errno::Errno;

/// How much of a program says what it is, in bytes.
const HEAD: u64 = 4096;

/// What kind of program a file is.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// A script; with the interpreter its first line names.
    Script(&'a [u8]),
    /// A program of a machine; with its loader, when it needs one.
    Elf(Option<&'a [u8]>),
    Unknown,
}

fn kind(head: &[u8]) -> Kind<'_> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
        return Kind::Script(words.find(|word| !word.is_empty()).unwrap_or_default());
    }
    if head.starts_with(b"\x7fELF") {
        // A text that ends with a NUL, as paths do in a program's head.
        let is_loader = |text: &&[u8]| text.starts_with(b"/") && memchr::memmem::find(text, b"/ld").is_some();
        return Kind::Elf(head.split(|byte| *byte == 0).find(is_loader));
    }
    Kind::Unknown
}

/// Says why `program`, which is there and executable, was not executed.
pub(super) fn why_not_executed(program: &Path, error: &io::Error) -> String {
    let mut head = Vec::new();
    // One that may be executed and not read keeps its secret.
    let _ = File::open(program).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let show = |path: &[u8]| OsStr::from_bytes(path).display().to_string();
    match (kind(&head), error.raw_os_error().map(Errno::from_raw)) {
        (Kind::Script(interpreter), Some(Errno::ENOENT)) if interpreter.ends_with(b"\r") => format!(
            "its first line names the interpreter `{}` and ends with a carriage return; the file needs line ends of Unix",
            show(interpreter.trim_ascii_end())
        ),
        (Kind::Script(interpreter), Some(Errno::ENOENT | Errno::ENOTDIR)) => {
            format!("its interpreter `{}` does not exist", show(interpreter))
        }
        (Kind::Script(interpreter), Some(Errno::EACCES)) => {
            format!("its interpreter `{}` is not executable", show(interpreter))
        }
        (Kind::Script(interpreter), Some(Errno::ENOEXEC | Errno::ELIBBAD)) => {
            format!("its interpreter `{}` is no program of this machine", show(interpreter))
        }
        (Kind::Elf(loader), Some(Errno::ENOENT | Errno::ELIBBAD)) => {
            let loader = loader.map(|loader| format!(" `{}`", show(loader))).unwrap_or_default();
            format!("the loader{loader} it was built for does not exist here: it was built for another system")
        }
        (Kind::Elf(_), Some(Errno::ENOEXEC)) => "it was built for another kind of processor".to_owned(),
        (Kind::Unknown, Some(Errno::ENOEXEC)) => {
            "it is neither a program of this machine nor a script whose first line begins with `#!`".to_owned()
        }
        _ => format!("cannot be executed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_head_tells_its_interpreter() {
        assert_eq!(kind(b"#! /bin/sh -e\necho"), Kind::Script(b"/bin/sh"));
        assert_eq!(kind(b"#!/bin/sh\r\n"), Kind::Script(b"/bin/sh\r"));
        assert_eq!(kind(b"#!"), Kind::Script(b""));
        assert_eq!(
            kind(b"\x7fELF\x02\0\0/lib64/ld-linux-x86-64.so.2\0x"),
            Kind::Elf(Some(b"/lib64/ld-linux-x86-64.so.2"))
        );
        assert_eq!(kind(b"\x7fELF\x02\0static"), Kind::Elf(None));
        assert_eq!(kind(b"echo"), Kind::Unknown);
    }
}
