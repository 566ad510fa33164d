//! What the system lacks for the moment: the same call may succeed when something else has ended. Pure, but for a look
//! at our own limits.

use std::{fs, io, sync::OnceLock};

use nix::errno::Errno;

/// What is lacking, for people; `None` when the error is about something else.
pub(crate) fn of(error: &io::Error) -> Option<String> {
    let what = match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => match most_files() {
            Some(most) => format!("too many open files: this process may have {most} (ulimit -n)"),
            None => "too many open files: see `ulimit -n`".to_owned(),
        },
        Errno::ENFILE => "the machine has too many open files".to_owned(),
        Errno::EAGAIN => "no more processes may be started for now (ulimit -u, or a limit of the container)".to_owned(),
        Errno::ENOMEM => "there is not enough memory for now".to_owned(),
        Errno::ENOBUFS => "the system has no buffers for now".to_owned(),
        Errno::ETXTBSY => "the program is being written".to_owned(),
        Errno::EINTR => "the call was interrupted".to_owned(),
        _ => return None,
    };
    Some(what)
}

/// Looks at our limit while it can: when descriptors are lacking it cannot be read any more.
pub(crate) fn most_files() -> Option<&'static str> {
    static MOST: OnceLock<Option<String>> = OnceLock::new();
    let most = MOST.get_or_init(|| {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(line.split_whitespace().next()?.to_owned())
    });
    most.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_named_and_nothing_else() {
        for (lacks, word) in [
            (Errno::EMFILE, "open files"),
            (Errno::ENFILE, "open files"),
            (Errno::EAGAIN, "processes"),
            (Errno::ENOMEM, "memory"),
            (Errno::ETXTBSY, "written"),
        ] {
            let text = of(&lacks.into()).unwrap();
            assert!(text.contains(word), "{text}");
        }
        for other in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::ENOSPC, Errno::E2BIG] {
            assert_eq!(of(&other.into()), None);
        }
        assert_eq!(of(&io::Error::other("x")), None);
    }
}
