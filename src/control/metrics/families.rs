//! Every metric: its name, its help text and where its values come from.
//!
//! The labels are the shard's number and words out of fixed lists, and each list is always told whole: so series
//! neither come nor go, and there are as many of a big server as of a small one with as many shards.

use std::sync::Arc;
use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as Cumulative, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::control::failures::ShardFaults;
use crate::control::metrics::process::Usage;
use crate::shard::mailbox::{
    BATCH_BOUNDS, CloseReason, DRAIN_BOUNDS, DropReason, FORWARDING_BOUNDS, Flow, HANDSHAKE_BOUNDS,
    Histogram, Snapshot,
};

/// All that one scrape tells.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    pub uptime: Duration,
    pub rooms: usize,
    pub peers: usize,
    /// Clients that are connected, joined or not.
    pub connections: usize,
    pub process: Usage,
    /// How often each limit was met.
    pub limits: Vec<(&'static str, u64)>,
    /// What happened to shards.
    pub faults: ShardFaults,
    /// In the order of their ids.
    pub shards: Vec<Seen>,
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Whether it answered this time.
    pub is_up: bool,
    /// What it told last.
    pub snapshot: Arc<Snapshot>,
}

impl Scrape {
    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = Writer { families: Vec::new(), shards: &self.shards };
        self.server(&mut out);
        holdings(&mut out);
        media(&mut out);
        repair(&mut out);
        handshakes(&mut out);
        loops(&mut out);
        // What it refuses is a family without a name or series.
        TextEncoder::new().encode_to_string(&out.families).unwrap_or_default()
    }
}

impl Scrape {
    fn server(&self, out: &mut Writer<'_>) {
        out.info("shardcast_build_info", "The running version", env!("CARGO_PKG_VERSION"));
        out.gauge(
            "shardcast_uptime_seconds",
            "Time since the server started",
            self.uptime.as_secs_f64(),
        );
        out.gauge("shardcast_rooms", "Rooms", self.rooms as f64);
        out.gauge("shardcast_peers", "Clients that have joined a room", self.peers as f64);
        out.gauge(
            "shardcast_connections",
            "Clients that are connected by WebSocket or Socket.IO, joined or not",
            self.connections as f64,
        );
        let process = &self.process;
        out.gauge(
            "process_resident_memory_bytes",
            "Resident memory of the process",
            process.resident as f64,
        );
        out.gauge("process_open_fds", "Open descriptors", process.descriptors as f64);
        out.gauge(
            "process_max_fds",
            "Descriptors that may be open at a time",
            process.most_descriptors as f64,
        );
        out.times(
            "shardcast_limits_met_total",
            "Times that a client met a limit, by the setting that sets it",
            "limit",
            &self.limits,
        );
        let ShardFaults { failed, restarted, stuck } = self.faults;
        out.times(
            "shardcast_shard_faults_total",
            "Shards that failed, that work again, and that stood still",
            "fault",
            &[("failed", failed), ("restarted", restarted), ("stuck", stuck)],
        );
        let up = "Whether the shard answered this scrape; if not, its other values are those that it told last";
        out.family(MetricType::GAUGE, "shardcast_shard_up", up, |seen| {
            vec![([], gauge(f64::from(u8::from(seen.is_up))))]
        });
    }
}

/// What a shard holds at the moment.
fn holdings(out: &mut Writer<'_>) {
    out.gauges("shardcast_transports", "Transports: ICE and DTLS paths", |s| s.rooms.transports);
    out.gauges("shardcast_transports_connected", "Transports whose handshake is done", |s| {
        s.rooms.connected
    });
    out.gauges("shardcast_producers", "Tracks that arrive at the shard", |s| s.rooms.producers);
    out.gauges("shardcast_replicas", "Tracks that other shards hand over to the shard", |s| {
        s.rooms.replicas
    });
    out.gauges("shardcast_consumers", "Tracks that leave the shard", |s| s.rooms.consumers);
    out.gauges("shardcast_history_packets", "Packets kept for retransmission and joiners", |s| {
        s.rooms.history_packets
    });
    out.gauges("shardcast_history_bytes", "Memory of the packets kept", |s| s.rooms.history_bytes);
    out.gauges(
        "shardcast_estimated_transports",
        "Transports whose bandwidth towards the client is estimated",
        |s| s.rooms.measured_lines,
    );
    out.gauges(
        "shardcast_estimated_bandwidth_bytes_per_second",
        "Estimated bandwidth towards the clients, all estimated transports together",
        |s| s.rooms.estimated_bitrate / 8,
    );
}

/// What passes through a shard.
fn media(out: &mut Writer<'_>) {
    let received = |s: &Snapshot| {
        let flows = s.rooms.flows;
        vec![
            ("rtp", flows.rtp_received),
            ("rtx", flows.rtx_received),
            ("rtcp", flows.rtcp_received),
        ]
    };
    let sent = |s: &Snapshot| {
        let flows = s.rooms.flows;
        vec![
            ("rtp", flows.rtp_sent),
            ("rtx", flows.rtx_sent),
            ("probe", flows.probes_sent),
            ("rtcp", flows.rtcp_sent),
        ]
    };
    out.flows("shardcast_received", "from clients, authenticated", received);
    out.flows("shardcast_sent", "to clients", sent);
    out.counters(
        "shardcast_received_datagrams_total",
        "Datagrams from anybody, of all protocols",
        |s| s.io.received,
    );
    out.counters("shardcast_sent_datagrams_total", "Datagrams that the kernel took", |s| s.io.sent);
    out.labelled(
        "shardcast_drops_total",
        "Datagrams, packets and requests that were refused, by stage and reason",
        |s| {
            let receive = [("truncated", s.io.truncated), ("nameless", s.io.nameless)];
            let engine =
                DropReason::ALL.iter().map(|why| (why.name(), s.rooms.counters.dropped(*why)));
            let stage = |stage| move |(why, count)| ([("stage", stage), ("reason", why)], count);
            let received = receive.into_iter().map(stage("receive"));
            let sent = s.io.send_drops.named().into_iter().map(stage("send"));
            received.chain(engine.map(stage("engine"))).chain(sent).collect()
        },
    );
    out.histogram(
        "shardcast_forwarding_seconds",
        "From a datagram's arrival at the machine to the end of the send of its turn's media",
        (&FORWARDING_BOUNDS, 1e9),
        |s| s.io.forwarding,
    );
}

/// Loss, and what is done about it.
fn repair(out: &mut Writer<'_>) {
    let nacks = |s: &Snapshot| {
        let counters = &s.rooms.counters;
        vec![("received", counters.asked.nacks), ("sent", counters.asking.nacks)]
    };
    out.by(
        "shardcast_nacks_total",
        "Requests for lost packets (NACK messages)",
        "direction",
        nacks,
    );
    let packets = |s: &Snapshot| {
        let counters = &s.rooms.counters;
        vec![("received", counters.asked.nack_packets), ("sent", counters.asking.nack_packets)]
    };
    out.by("shardcast_nack_packets_total", "Packets that NACKs asked for", "direction", packets);
    out.labelled(
        "shardcast_key_frame_requests_total",
        "Requests for key frames (PLI and FIR)",
        |s| {
            let (asked, asking) = (s.rooms.counters.asked, s.rooms.counters.asking);
            let each = [
                ("received", "pli", asked.plis),
                ("received", "fir", asked.firs),
                ("sent", "pli", asking.plis),
                ("sent", "fir", asking.firs),
            ];
            each.map(|(direction, kind, count)| ([("direction", direction), ("kind", kind)], count))
                .into()
        },
    );
}

fn handshakes(out: &mut Writer<'_>) {
    out.counters("shardcast_handshakes_begun_total", "Transports that DTLS has come from", |s| {
        s.rooms.counters.handshakes_begun
    });
    out.histogram(
        "shardcast_handshake_seconds",
        "From the first datagram of DTLS to the keys, of handshakes that ended well",
        (&HANDSHAKE_BOUNDS, 1e3),
        |s| s.rooms.counters.handshake_times,
    );
    let closed = |s: &Snapshot| {
        let reasons = CloseReason::ALL.iter();
        reasons.map(|why| (why.name(), s.rooms.counters.closed(*why))).collect()
    };
    out.by(
        "shardcast_transports_died_total",
        "Transports that ended without being closed by signaling; dtlsFailed and fingerprintMismatch are failed handshakes",
        "reason",
        closed,
    );
}

/// The shard's loop, its buffers and its queues.
fn loops(out: &mut Writer<'_>) {
    let cpu = "CPU time of the shard's thread";
    out.family(MetricType::COUNTER, "shardcast_shard_cpu_seconds_total", cpu, |seen| {
        vec![([], counter(seen.snapshot.cpu.as_secs_f64()))]
    });
    out.counters(
        "shardcast_panics_total",
        "Panics that cost the clients whom they were about their transports",
        |s| s.rooms.counters.panics,
    );
    out.counters("shardcast_sleeps_total", "Times that the shard had nothing to do", |s| {
        s.io.sleeps
    });
    out.histogram(
        "shardcast_drain_datagrams",
        "Datagrams that were taken in one turn of the loop",
        (&DRAIN_BOUNDS, 1.0),
        |s| s.io.drains,
    );
    out.histogram(
        "shardcast_send_messages",
        "Messages of one submit: single datagrams or trains",
        (&BATCH_BOUNDS, 1.0),
        |s| s.io.batches,
    );
    out.counters(
        "shardcast_trains_total",
        "Runs of datagrams that left as one message (GSO)",
        |s| s.io.trains,
    );
    out.counters("shardcast_train_datagrams_total", "Datagrams in trains", |s| s.io.sent_in_trains);
    out.counters("shardcast_trains_refused_total", "Trains that had to leave as datagrams", |s| {
        s.io.trains_refused
    });
    out.gauges(
        "shardcast_receive_waiting_max",
        "Most datagrams that waited in receive buffers at a time",
        |s| s.io.most_waiting,
    );
    out.counters(
        "shardcast_receive_buffers_exhausted_total",
        "Times that no buffer was left",
        |s| s.io.buffers_exhausted,
    );
    out.counters(
        "shardcast_receive_errors_total",
        "Receives that failed for another reason",
        |s| s.io.receive_errors,
    );
    out.gauges(
        "shardcast_send_arena_max_bytes",
        "Most of the send arena that was in use at a time",
        |s| s.io.most_arena,
    );
    let parcels = |s: &Snapshot| {
        let io = &s.io;
        vec![("received", io.parcels_in), ("sent", io.parcels_out), ("dropped", io.parcels_full)]
    };
    out.by(
        "shardcast_parcels_total",
        "Packets and notes between shards; dropped: the queue was full",
        "result",
        parcels,
    );
    out.gauges(
        "shardcast_handover_queue_max_parcels",
        "Most that waited in one queue from another shard",
        |s| s.io.most_parcels,
    );
}

type Label = (&'static str, &'static str);

/// Collects families, most of them with one series or more per shard.
struct Writer<'a> {
    families: Vec<MetricFamily>,
    shards: &'a [Seen],
}

impl Writer<'_> {
    fn put(&mut self, kind: MetricType, name: &str, help: &str, series: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(series);
        self.families.push(family);
    }

    fn info(&mut self, name: &str, help: &str, version: &str) {
        let mut series = gauge(1.0);
        series.set_label(vec![label("version", version)]);
        self.put(MetricType::GAUGE, name, help, vec![series]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.put(MetricType::GAUGE, name, help, vec![gauge(value)]);
    }

    /// Counters that no shard has: `counts` by the values of `label_name`.
    fn times(&mut self, name: &str, help: &str, label_name: &str, counts: &[(&str, u64)]) {
        let series = counts.iter().map(|(value, count)| {
            let mut series = counter(*count as f64);
            series.set_label(vec![label(label_name, value)]);
            series
        });
        self.put(MetricType::COUNTER, name, help, series.collect());
    }

    /// A family of which each shard has the series that `each` gives.
    fn family<const N: usize>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        each: impl Fn(&Seen) -> Vec<([Label; N], Metric)>,
    ) {
        let mut series = Vec::new();
        for (shard, seen) in self.shards.iter().enumerate() {
            let shard = label("shard", &shard.to_string());
            for (labels, mut metric) in each(seen) {
                let more = labels.iter().map(|(name, value)| label(name, value));
                metric.set_label(std::iter::once(shard.clone()).chain(more).collect());
                series.push(metric);
            }
        }
        self.put(kind, name, help, series);
    }

    fn gauges(&mut self, name: &str, help: &str, value: fn(&Snapshot) -> u64) {
        self.family(MetricType::GAUGE, name, help, |seen| {
            vec![([], gauge(value(&seen.snapshot) as f64))]
        });
    }

    fn counters(&mut self, name: &str, help: &str, value: fn(&Snapshot) -> u64) {
        self.labelled(name, help, |snapshot| vec![([], value(snapshot))]);
    }

    /// Counters with more labels than the shard.
    fn labelled<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Fn(&Snapshot) -> Vec<([Label; N], u64)>,
    ) {
        self.family(MetricType::COUNTER, name, help, |seen| {
            let values = values(&seen.snapshot).into_iter();
            values.map(|(labels, value)| (labels, counter(value as f64))).collect()
        });
    }

    /// Counters with one label more than the shard.
    fn by(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: fn(&Snapshot) -> Vec<(&'static str, u64)>,
    ) {
        self.labelled(name, help, |snapshot| {
            let values = values(snapshot).into_iter();
            values.map(|(word, value)| ([(label, word)], value)).collect()
        });
    }

    /// Packets and bytes, by kind.
    fn flows(&mut self, name: &str, help: &str, flows: fn(&Snapshot) -> Vec<(&'static str, Flow)>) {
        let mut put = |unit, of: fn(Flow) -> u64| {
            let name = format!("{name}_{unit}_total");
            self.labelled(&name, &format!("RTP and RTCP {unit} {help}"), |snapshot| {
                let flows = flows(snapshot).into_iter();
                flows.map(|(kind, flow)| ([("kind", kind)], of(flow))).collect()
            });
        };
        put("packets", |flow| flow.packets);
        put("bytes", |flow| flow.bytes);
    }

    /// A histogram, of whose units so many are one of what its name says.
    fn histogram<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        (bounds, units): (&[u64; N], f64),
        histogram: fn(&Snapshot) -> Histogram<N>,
    ) {
        self.family(MetricType::HISTOGRAM, name, help, |seen| {
            vec![([], cumulative(&histogram(&seen.snapshot), bounds, units))]
        });
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn gauge(value: f64) -> Metric {
    let (mut metric, mut gauge) = (Metric::default(), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(value: f64) -> Metric {
    let (mut metric, mut counter) = (Metric::default(), Counter::default());
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

/// What lies above the last bound is told by the count alone.
fn cumulative<const N: usize>(histogram: &Histogram<N>, bounds: &[u64; N], units: f64) -> Metric {
    let mut so_far = 0;
    let buckets = bounds.iter().zip(histogram.buckets).map(|(bound, count)| {
        so_far += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / units);
        bucket.set_cumulative_count(so_far);
        bucket
    });
    let (mut metric, mut whole) = (Metric::default(), Cumulative::default());
    whole.set_bucket(buckets.collect());
    whole.set_sample_count(histogram.count);
    whole.set_sample_sum(histogram.sum as f64 / units);
    metric.set_histogram(whole);
    metric
}
