//! `check`: read the configuration as a start would, print what is wrong with it, bind nothing and ask nobody.

use std::process::ExitCode;

use crate::life::load::{Refused, load};
use crate::life::options::Options;
use crate::life::sources::Sources;
use crate::life::{aside, budget};
use crate::sys::sockopt;

/// Prints `ok` or every diagnostic.
pub(super) fn check(options: &Options) -> ExitCode {
    let mut sources = Sources::new(options);
    options.unset.iter().for_each(|unset| super::complain(&unset.to_string()));
    let loaded = load(&mut sources, options, |_| ());
    let short = budget::warnings(options, sockopt::raise_descriptor_limit().ok());
    options.warnings.iter().chain(&short).for_each(|warning| super::complain(warning));
    sources.take_notices().iter().filter_map(|notice| notice.problem()).for_each(super::complain);
    match loaded {
        Ok(loaded) => {
            // Files are often checked on another machine than the one that they are for.
            let files = aside::refusals(&loaded.routes);
            let warnings = loaded.warnings.iter().chain(&files);
            warnings.for_each(|warning| super::complain(&format!("warning: {warning}")));
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
