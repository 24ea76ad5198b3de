//! `check`: read the configuration as a start would, print what is wrong with it, open nothing.

use std::process::ExitCode;

use crate::life::budget;
use crate::life::load::{Refused, load};
use crate::life::options::Options;
use crate::life::sources::Sources;
use crate::sys::sockopt;

/// Prints `ok` or every diagnostic.
pub(super) fn check(options: &Options) -> ExitCode {
    let mut sources = Sources::new(options);
    let loaded = load(&mut sources, options, |_| ());
    let short = budget::warnings(options, sockopt::raise_descriptor_limit().ok());
    options.warnings.iter().chain(&short).for_each(|warning| super::complain(warning));
    sources.take_notices().iter().filter_map(|notice| notice.problem()).for_each(super::complain);
    match loaded {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| super::complain(&format!("warning: {warning}")));
            super::say("ok\n", ExitCode::SUCCESS)
        }
        Err(refused) => {
            match refused {
                Refused::Corefile(faults) => return super::say(&faults.rendered, ExitCode::FAILURE),
                Refused::Source(error) => super::complain(&error.to_string()),
            }
            ExitCode::FAILURE
        }
    }
}
