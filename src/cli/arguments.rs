//! Go's flag notation. Arguments in, the same flags in the one notation clap is asked to read (`--name=value`) out.

use clap::Command;

use super::commands;
use crate::corefile::nearest;

/// Rewrites `-name value`, `-name=value`, `--name value` and bare boolean `-name` to `--name=value`. The error is a
/// sentence for the operator: an unknown flag with the nearest known one, a missing value, or a stray word.
pub(crate) fn normalise(command: &Command, arguments: &[String]) -> Result<Vec<String>, String> {
    let (flags, words) = split(command, arguments)?;
    words.first().map_or(Ok(flags), |word| Err(stray(word)))
}

/// The same for a command that takes words as well, which may stand anywhere: flags, words.
pub(crate) fn split(command: &Command, arguments: &[String]) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut out, mut words) = (Vec::with_capacity(arguments.len()), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) =
            argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).filter(|flag| !flag.is_empty())
        else {
            words.push(argument.clone());
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let known = find(command, name).ok_or_else(|| unknown(command, name))?;
        let value = match value {
            Some(value) => value.to_owned(),
            None if known.boolean => "true".to_owned(),
            None => rest.next().ok_or_else(|| format!("flag -{name} needs a value"))?.clone(),
        };
        out.push(format!("--{}={value}", known.name));
    }
    Ok((out, words))
}

struct Known {
    name: String,
    boolean: bool,
}

fn find(command: &Command, name: &str) -> Option<Known> {
    command.get_arguments().find_map(|arg| {
        let long = arg.get_long()?;
        let short = arg.get_short().is_some_and(|short| name.len() == 1 && name.starts_with(short));
        let boolean = arg.get_value_names().is_some_and(|names| names[0] == "BOOL");
        (long == name || short).then(|| Known { name: long.to_owned(), boolean })
    })
}

fn stray(argument: &str) -> String {
    format!(
        "extra command line argument {argument:?}: every setting is a flag (-conf FILE), a boolean one is switched with \
         '=' (-setupinterface=false); the subcommands are {}, and come first",
        commands::words()
    )
}

fn unknown(command: &Command, name: &str) -> String {
    let known = || command.get_arguments().filter_map(|arg| arg.get_long());
    // A word cut short or split differently is too far away in letters.
    let part_of = |known: &&str| known.replace(['.', '-'], "").contains(&name.replace(['.', '-'], "").to_lowercase());
    match nearest(name, known()).or_else(|| known().find(part_of)) {
        Some(nearest) => format!("unknown flag -{name}; the nearest one is -{nearest} (-h lists all)"),
        None => format!("unknown flag -{name} (-h lists all)"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::flags::Flags;

    fn run(arguments: &[&str]) -> Result<Vec<String>, String> {
        let owned: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        normalise(&Flags::command(), &owned)
    }

    #[test]
    fn one_dash_or_two_and_a_space_or_an_equals_sign() {
        for arguments in [&["-conf", "x"][..], &["-conf=x"], &["--conf", "x"], &["--conf=x"]] {
            assert_eq!(run(arguments).unwrap(), ["--conf=x"], "{arguments:?}");
        }
        assert_eq!(run(&["-p", "5353", "-pidfile=a=b"]).unwrap(), ["--dns.port=5353", "--pidfile=a=b"]);
        assert_eq!(run(&["-conf", "-x"]).unwrap(), ["--conf=-x"], "the word after a flag is its value");
    }

    #[test]
    fn a_bare_boolean_is_true_and_takes_no_word() {
        assert_eq!(
            run(&["-skipteardown", "-setupinterface=false"]).unwrap(),
            ["--skipteardown=true", "--setupinterface=false"]
        );
        assert!(run(&["-quiet", "false"]).unwrap_err().contains("extra command line argument \"false\""));
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        for (typed, nearest) in
            [("-locallip", "-localip"), ("--basecore", "-basecorefile"), ("-dnsport", "-dns.port"), ("-Conf", "-conf")]
        {
            let error = run(&[typed, "x"]).unwrap_err();
            assert!(error.contains(&format!("the nearest one is {nearest} ")), "{error}");
        }
    }

    #[test]
    fn a_missing_value_and_stray_words_are_named() {
        assert_eq!(run(&["-conf"]).unwrap_err(), "flag -conf needs a value");
        for word in ["Corefile", "-", "--"] {
            assert!(run(&[word]).unwrap_err().contains("extra command line argument"), "{word}");
        }
    }
}
