//! Configurations for tests, from the text that a person would write.

use stillpoint::config::{SourceFile, load};
use stillpoint::model::job::Config;

/// The configuration of a text, on a machine called `web1`. A text with a problem fails the test that wrote it.
pub fn configured(text: &str) -> Config {
    let file = SourceFile { path: "/etc/stillpoint.toml".into(), text: text.into() };
    let loaded = load(&[file], "web1", |_| None);
    loaded
        .unwrap_or_else(|problems| panic!("the test's configuration is refused:\n{problems}"))
        .config
}
