//! Writes to and reads from streams that somebody else made and may share with us. Touches nothing but the descriptor
//! it is given.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Writes all of `bytes`, for as long as a reader takes to take them. A stream that another holder of it made
/// non-blocking is waited for like any other.
///
/// # Errors
/// The stream takes no more, such as [`io::ErrorKind::BrokenPipe`] when nobody can read it and
/// [`io::ErrorKind::StorageFull`] when a disk is full. How much was written before is not known.
pub fn write_all(target: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let target = target.as_fd();
    let mut left = bytes;
    while !left.is_empty() {
        match write(target, left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => left = left.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(target, PollFlags::POLLOUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads to the end, at most `limit` bytes and one more: then there is more than that.
///
/// # Errors
/// The stream cannot be read.
pub fn read_to_end(source: impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    let source = source.as_fd();
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while bytes.len() <= limit {
        let most = chunk.len().min(limit + 1 - bytes.len());
        match read(source, &mut chunk[..most]) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(source, PollFlags::POLLIN)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

fn wait(stream: BorrowedFd<'_>, until: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(stream, until)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        unistd::pipe,
    };

    use super::*;

    #[test]
    fn a_stream_that_would_not_wait_gets_everything() {
        let (reader, writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let text: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut read).unwrap();
            read
        });
        write_all(&writer, &text).unwrap();
        drop(writer);
        assert!(reading.join().unwrap() == text);
    }

    #[test]
    fn a_stream_without_anything_yet_is_waited_for_and_read_no_further_than_wanted() {
        let (reader, writer) = pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let writing = thread::spawn(move || {
            for _ in 0..100 {
                write_all(&writer, &[7; 1000]).unwrap();
                thread::yield_now();
            }
        });
        assert_eq!(read_to_end(&reader, 99_000).unwrap().len(), 99_001);
        assert_eq!(read_to_end(&reader, 5000).unwrap().len(), 999);
        writing.join().unwrap();
    }

    #[test]
    fn what_takes_nothing_any_more_is_an_error() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(write_all(&writer, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(write_all(&full, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
