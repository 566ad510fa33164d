//! Which system calls change something outside the process that makes them.

use std::{fs, path::Path};

use nix::{libc, sys::ptrace, unistd::Pid};

/// A call at its entry.
struct Call {
    number: i64,
    arguments: [u64; 4],
}

/// What the call does that this thread of `owner` is about to make, if that changes anything outside; `None` also at a
/// call's end.
pub fn entered(pid: Pid, owner: Pid) -> Option<String> {
    let call = at_entry(pid)?;
    let (name, path) = changes(&call, pid, owner)?;
    let named = path.and_then(|argument| text(pid, call.arguments[argument]));
    Some(named.map_or_else(|| name.to_owned(), |path| format!("{name} {path}")))
}

#[cfg(target_arch = "x86_64")]
fn at_entry(pid: Pid) -> Option<Call> {
    let registers = ptrace::getregs(pid).ok()?;
    // The kernel has this answer ready before it looks at the call.
    let is_entry = registers.rax.cast_signed() == -i64::from(libc::ENOSYS);
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    is_entry.then_some(Call { number: registers.orig_rax.cast_signed(), arguments })
}

#[cfg(target_arch = "aarch64")]
fn at_entry(pid: Pid) -> Option<Call> {
    let registers = ptrace::getregs(pid).ok()?.regs;
    // Only at such a stop: 0 at the entry and 1 at the end.
    let is_entry = registers[7] == 0;
    let arguments = [registers[0], registers[1], registers[2], registers[3]];
    is_entry.then_some(Call { number: registers[8].cast_signed(), arguments })
}

/// The name of a call that changes something, and which argument is the path it changes.
fn changes(call: &Call, pid: Pid, owner: Pid) -> Option<(&'static str, Option<usize>)> {
    let creates = |flags: u64| flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
    let makes_process = |flags: u64| flags & u64::from(libc::CLONE_THREAD.cast_unsigned()) == 0;
    let [first, _, third, _] = call.arguments;
    Some(match call.number {
        libc::SYS_openat if creates(third) => ("openat", Some(1)),
        libc::SYS_mkdirat => ("mkdirat", Some(1)),
        libc::SYS_renameat => ("renameat", Some(1)),
        libc::SYS_renameat2 => ("renameat2", Some(1)),
        libc::SYS_linkat => ("linkat", Some(1)),
        libc::SYS_unlinkat => ("unlinkat", Some(1)),
        libc::SYS_symlinkat => ("symlinkat", Some(0)),
        libc::SYS_fchmodat => ("fchmodat", Some(1)),
        libc::SYS_fchmod => ("fchmod", None),
        libc::SYS_fsync => ("fsync", None),
        libc::SYS_fdatasync => ("fdatasync", None),
        libc::SYS_ftruncate => ("ftruncate", None),
        libc::SYS_fallocate => ("fallocate", None),
        libc::SYS_write if is_file(owner, first) => ("write", None),
        libc::SYS_pwrite64 if is_file(owner, first) => ("pwrite64", None),
        libc::SYS_writev if is_file(owner, first) => ("writev", None),
        libc::SYS_copy_file_range => ("copy_file_range", None),
        libc::SYS_sendfile => ("sendfile", None),
        libc::SYS_kill => ("kill", None),
        libc::SYS_pidfd_send_signal => ("pidfd_send_signal", None),
        libc::SYS_execve => ("execve", Some(0)),
        libc::SYS_clone if makes_process(first) => ("clone", None),
        // Its flags are the first word of its arguments.
        libc::SYS_clone3 if word(pid, first).is_none_or(makes_process) => ("clone3", None),
        other => return older(other, call.arguments).map(|name| (name, Some(0))),
    })
}

/// Calls that newer processors do not have.
#[cfg(target_arch = "x86_64")]
fn older(number: i64, [_, second, ..]: [u64; 4]) -> Option<&'static str> {
    Some(match number {
        libc::SYS_open if second & u64::from(libc::O_CREAT.cast_unsigned()) != 0 => "open",
        libc::SYS_creat => "creat",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_rename => "rename",
        libc::SYS_link => "link",
        libc::SYS_unlink => "unlink",
        libc::SYS_rmdir => "rmdir",
        libc::SYS_symlink => "symlink",
        libc::SYS_chmod => "chmod",
        libc::SYS_fork => "fork",
        libc::SYS_vfork => "vfork",
        _ => return None,
    })
}

#[cfg(target_arch = "aarch64")]
fn older(_: i64, _: [u64; 4]) -> Option<&'static str> {
    None
}

/// Whether a descriptor is a file, and no stream, pipe or event. Of a launcher that may not be looked at: it closes its
/// memory to others, and has nothing but files.
fn is_file(owner: Pid, descriptor: u64) -> bool {
    let found = fs::read_link(format!("/proc/{owner}/fd/{descriptor}"));
    descriptor > 2 && found.map_or(true, |found| found.is_absolute() && !found.starts_with("/dev"))
}

fn word(pid: Pid, address: u64) -> Option<u64> {
    let address = usize::try_from(address).ok()? as ptrace::AddressType;
    ptrace::read(pid, address).ok().map(i64::cast_unsigned)
}

/// The last part of a path in the traced process.
fn text(pid: Pid, address: u64) -> Option<String> {
    let mut bytes = Vec::new();
    for at in (address..).step_by(8).take(512) {
        let part = word(pid, at)?.to_ne_bytes();
        bytes.extend(part.iter().take_while(|byte| **byte != 0));
        if part.contains(&0) {
            let path = String::from_utf8(bytes).ok()?;
            return Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned());
        }
    }
    None
}
