//! A signature of a run, for whoever wants to know who sealed it: of its manifest, which holds the hash of every file, by a
//! key of SSH and its own program. Leaves to others: whether the files are those of the manifest.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;

use crate::run_dir::{MANIFEST, RunDir, SIGNATURE};

/// What a signature is for, so that one made for something else is none here.
const NAMESPACE: &str = "sdpa-kernel-gate";

fn keygen(arguments: &[&std::ffi::OsStr], input: Stdio) -> Result<Result<Output, Deferral>> {
    match Command::new("ssh-keygen").args(arguments).stdin(input).output() {
        Ok(output) => Ok(Ok(output)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(Err(Deferral::new("ssh-keygen is not installed", "install OpenSSH's client")))
        }
        Err(error) => Err(error).context("failed to start `ssh-keygen`"),
    }
}

fn said(output: &Output) -> String {
    let words = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    words.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a word").to_owned()
}

/// Signs a sealed run with a private key. The inner error is what this machine lacks.
pub fn sign(run: &RunDir, key: &Path) -> Result<Result<(), Deferral>> {
    let manifest = run.path.join(MANIFEST);
    let words = ["-Y", "sign", "-n", NAMESPACE, "-f"].map(std::ffi::OsStr::new);
    let arguments = [&words[..], &[key.as_os_str(), manifest.as_os_str()]].concat();
    let output = match keygen(&arguments, Stdio::null())? {
        Ok(output) => output,
        Err(deferral) => return Ok(Err(deferral)),
    };
    if !output.status.success() {
        bail!("`{}` was not signed with `{}`: {}", run.path.display(), key.display(), said(&output));
    }
    Ok(Ok(()))
}

/// What is wrong with a run's signature, by one of the signers of a file. The error is what this machine lacks.
pub fn examine(run: &RunDir, signers: &Path, signer: &str) -> Result<Option<String>, Deferral> {
    let (manifest, signature) = (run.path.join(MANIFEST), run.path.join(SIGNATURE));
    if run.bytes(SIGNATURE).is_err() {
        return Ok(Some(format!("it is not signed: it has no {SIGNATURE}")));
    }
    let Ok(input) = std::fs::File::open(&manifest) else { return Ok(Some(format!("{MANIFEST} cannot be read"))) };
    let words = ["-Y", "verify", "-n", NAMESPACE, "-I", signer, "-f"].map(std::ffi::OsStr::new);
    let arguments = [&words[..], &[signers.as_os_str(), "-s".as_ref(), signature.as_os_str()]].concat();
    let output = keygen(&arguments, input.into()).map_err(|error| Deferral::because(format!("{error:#}")))??;
    let words = said(&output);
    Ok((!output.status.success()).then(|| format!("it is not signed by {signer} of `{}`: {words}", signers.display())))
}
