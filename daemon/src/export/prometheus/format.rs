//! The two text formats of the metrics page, and the choice between them by `Accept`. Writes no page.

/// A format of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Classic,
}

impl Format {
    /// The `Content-Type` of the format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format that a client with these `Accept` headers prefers. Classic where the header is missing, malformed, or
    /// accepts neither format: a page in another format is more useful than an error.
    pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let mut openmetrics = Preference::default();
        let mut classic = Preference::default();
        for range in accept.into_iter().flat_map(|header| header.split(',')) {
            let Some(range) = Range::parse(range) else { continue };
            match (range.kind, range.version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => openmetrics.take(2, range.quality),
                ("application/*", _) => openmetrics.take(1, range.quality),
                ("text/plain", None | Some("0.0.4")) => classic.take(2, range.quality),
                ("text/*", _) => classic.take(1, range.quality),
                ("*/*", _) => {
                    openmetrics.take(0, range.quality);
                    classic.take(0, range.quality);
                }
                _ => {}
            }
        }
        let wanted = openmetrics.quality > classic.quality
            || openmetrics.quality == classic.quality && openmetrics.precision > classic.precision;
        if wanted && openmetrics.quality > 0 { Self::OpenMetrics } else { Self::Classic }
    }
}

/// The quality of a format, and how specific the media range is: a specific range overrides a wildcard.
#[derive(Default)]
struct Preference {
    precision: u8,
    quality: u16,
}

impl Preference {
    fn take(&mut self, precision: u8, quality: u16) {
        if precision > self.precision {
            *self = Self { precision, quality };
        } else if precision == self.precision {
            self.quality = self.quality.max(quality);
        }
    }
}

struct Range<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self { kind: parts.next()?, version: None, quality: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "version" => range.version = Some(value.trim().trim_matches('"')),
                "q" | "Q" => {
                    let quality: f32 = value.trim().parse().ok()?;
                    range.quality = (quality.clamp(0.0, 1.0) * 1000.0).round() as u16;
                }
                _ => {}
            }
        }
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{self, Classic, OpenMetrics};

    #[test]
    fn the_clients_liking_decides() {
        for (accept, expected) in [
            ("", Classic),
            ("*/*", Classic),
            ("text/html, */*;q=0.8", Classic),
            ("image/png", Classic),
            ("text/plain", Classic),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Classic),
            ("application/openmetrics-text;q=0", Classic),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.4", Classic),
            ("application/openmetrics-text;q=nonsense", Classic),
            ("text/plain;version=0.0.4;q=0.5, */*;q=0.9", OpenMetrics),
            // Prometheus 2.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
        ] {
            assert_eq!(Format::negotiate([accept]), expected, "{accept}");
        }
        assert_eq!(Format::negotiate([]), Classic);
        assert_eq!(Format::negotiate(["text/plain;q=0.1", "application/openmetrics-text"]), OpenMetrics);
    }
}
