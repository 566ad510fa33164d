//! An error with its causes, for people.

use std::error::Error;

/// An error and its causes in one line, each said once: many errors repeat their cause in their own text.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}
