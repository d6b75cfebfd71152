//! `jouled_push_*`: what became of the samples that were sent to receivers.

use super::super::encode::{About, Encoder, LabelSet, counters, gauges};
use crate::export::push::Totals;
use std::fmt;

/// A time of a receiver, milliseconds since 1970.
type Time = fn(&Totals) -> Option<i64>;

pub(in crate::export::prometheus) fn encode(encoder: &mut Encoder<'_>, receivers: &[Totals]) -> fmt::Result {
    let about = About {
        name: "jouled_push_samples",
        unit: "",
        help: "Number of samples for a receiver, by what became of them, measured: written, refused by the receiver, or dropped because \
               they were too old or too many to be kept",
    };
    let samples = receivers.iter().flat_map(|of| {
        of.samples
            .iter()
            .map(|(result, count)| (LabelSet::plain([("receiver", of.receiver.as_str()), ("result", *result)]), *count))
    });
    counters(encoder, &about, samples)?;
    let about = About {
        name: "jouled_push_requests",
        unit: "",
        help: "Number of requests to a receiver, by the status of its answer, measured; none: there was no answer",
    };
    let samples = receivers.iter().flat_map(|of| {
        of.requests.iter().map(|(status, count)| {
            (LabelSet::plain([("receiver", of.receiver.as_str()), ("status", status.as_str())]), *count)
        })
    });
    counters(encoder, &about, samples)?;
    let about = About {
        name: "jouled_push_waiting_samples",
        unit: "",
        help: "Number of samples of counters that wait for a receiver, measured",
    };
    gauges(encoder, &about, receivers.iter().map(|of| (LabelSet::plain([("receiver", &*of.receiver)]), of.waiting)))?;
    let about = About {
        name: "jouled_push_log",
        unit: "bytes",
        help: "Size in bytes of the log of samples that wait for a receiver, measured",
    };
    gauges(encoder, &about, receivers.iter().map(|of| (LabelSet::plain([("receiver", &*of.receiver)]), of.log_bytes)))?;
    let seconds = |milliseconds: i64| milliseconds as f64 / 1e3;
    let times: [(&str, &str, Time); 2] = [
        (
            "oldest_waiting",
            "Time of the oldest sample that waits for a receiver, in seconds since 1970; absent where none does",
            |of| of.oldest,
        ),
        (
            "last_taken",
            "Time of the last request that a receiver took, in seconds since 1970; absent before the first one",
            |of| of.last_taken,
        ),
    ];
    for (name, help, of_receiver) in times {
        let about = About { name: &format!("jouled_push_{name}_timestamp"), unit: "seconds", help };
        let samples = receivers
            .iter()
            .filter_map(|of| Some((LabelSet::plain([("receiver", &*of.receiver)]), seconds(of_receiver(of)?))));
        gauges(encoder, &about, samples)?;
    }
    Ok(())
}
