//! `check`: read the configuration as a start would, print what is wrong with it, bind nothing and ask nobody.

use std::process::ExitCode;

use crate::life::aside::Refusals;
use crate::life::budget;
use crate::life::load::{Refused, load};
use crate::life::options::Options;
use crate::life::sources::Sources;
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
            let Refusals { circle, unusable } = Refusals::of(&loaded.routes);
            // Files are often checked on another machine than the one that they are for, where they may be in order.
            let warnings = loaded.warnings.iter().chain(&unusable);
            warnings.for_each(|warning| super::complain(&format!("warning: {warning}")));
            match circle {
                Some(circle) => super::complain(&circle),
                None => return super::say("ok\n", ExitCode::SUCCESS),
            }
            ExitCode::FAILURE
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
