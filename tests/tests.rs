//! Black-box tests of the built binary, the scenarios of the resolver, and the rules of this repository's own layout.
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[cfg(test)]
mod checklist;
#[cfg(test)]
mod cleanup;
#[cfg(test)]
mod corefile;
#[cfg(test)]
mod denials;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod looking;
#[cfg(test)]
mod model;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod searches;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod stubs;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod walks;
#[cfg(test)]
mod worker;
