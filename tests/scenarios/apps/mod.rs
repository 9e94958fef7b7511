//! Apps of a config.json: ports that are served by targets anywhere.

mod fixture;
mod limits;
mod names;
mod published;
mod refusal;
mod simplenetes;
