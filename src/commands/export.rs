//! `export`: an archive on standard output, encrypted.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context, Result, bail, ensure};

use super::find_archive::open_archive;
use crate::cli::{ExportArgs, Global};
use crate::outcome::ExitStatus;
use crate::sys::encryption::Recipients;
use crate::sys::format::human_bytes;
use crate::sys::signals::Signals;

const READ_BYTES: usize = 256 << 10;

pub fn export(global: &Global, args: &ExportArgs) -> Result<ExitStatus> {
    let signals = Signals::install_silently()?;
    let recipients = Recipients::read(&args.recipients, &args.recipients_files)?;
    ensure!(
        args.what != "-",
        "an archive on standard input is encrypted by `age`: name a stack or an archive file"
    );
    ensure!(
        !io::stdout().is_terminal(),
        "an encrypted archive is not for a terminal: send it to a file or a pipe"
    );
    let (archive, passed_over) = open_archive(global, &args.what)?;
    passed_over.check(args.pass_over)?;
    let damaged = archive.find_damage(signals.flag())?;
    if let Some(first) = damaged.first() {
        bail!(
            "{} is damaged, and nothing was written: {first} (`verify` lists all damage)",
            archive.name()
        );
    }
    let mut file = archive.file().context("the archive is not a file")?;
    let context = || format!("cannot export {}", archive.name());
    let mut output = recipients.encrypt(io::stdout().lock())?;
    let mut buffer = vec![0; READ_BYTES];
    let mut archive_bytes = 0;
    loop {
        signals.check()?;
        let got = file.read(&mut buffer).with_context(context)?;
        if got == 0 {
            break;
        }
        output.write_all(&buffer[..got]).with_context(context)?;
        archive_bytes += got as u64;
    }
    let mut output = output.finish().with_context(context)?;
    output.flush().with_context(context)?;
    tracing::info!(
        archive = archive.name(),
        content = human_bytes(archive_bytes),
        "exported"
    );
    Ok(ExitStatus::Ok)
}
