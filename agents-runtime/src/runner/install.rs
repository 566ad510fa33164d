//! Puts a copy of the running executable somewhere: how the runner gets into a container whose image lacks it.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Copies the running executable to `target`, executable for everybody; whole or not at all.
///
/// # Errors
/// The system refused.
pub(super) fn install(target: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not the path of a file"));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::create_dir_all(folder)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = folder.join(temporary);
    let copied = copy(&temporary).and_then(|()| fs::rename(&temporary, target));
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied?;
    File::open(folder)?.sync_all()
}

fn copy(to: &Path) -> io::Result<()> {
    // By its link and not by its name: the file may have been replaced since we started.
    let mut from = File::open("/proc/self/exe")?;
    let mut file = File::create(to)?;
    io::copy(&mut from, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}
