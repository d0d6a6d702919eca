//! The body of the fuzz target.

use arbitrary::{Arbitrary, Unstructured};

use super::{FrameInfo, Kind, Layer, PictureIds, Selector, Structure, Verdict};
use crate::id::Codec;
use crate::wire::dependency;
use crate::wire::fuzz::Bytes;
use crate::wire::seq::SeqNo;

/// What happens to a consumer.
#[derive(Arbitrary, Debug)]
enum Step {
    /// A wish for layers.
    Target(Option<(u8, u8)>),
    /// A packet, `ahead` of the one before.
    Packet { encoding: u8, ahead: i8, marker: bool, payload: Bytes, element: Option<Bytes> },
}

/// Takes `data` as the codec, and as a consumer's wishes and packets.
///
/// # Panics
/// When a verdict contradicts the wishes, or a payload changes its length or its layers: then a bug is found.
pub fn layers(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok((codec, is_svc)) = input.arbitrary::<(u8, bool)>() else { return };
    let codec = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264][usize::from(codec % 4)];
    let mut selector = Selector::new(if is_svc { Kind::Svc } else { Kind::Simulcast });
    let mut picture_ids = PictureIds::new(codec);
    let mut structures = [(); 3].map(|()| Structure::default());
    let mut seqs = [SeqNo(1 << 16); 3];
    for step in input.arbitrary_iter().into_iter().flatten().map_while(Result::ok) {
        match step {
            Step::Target(target) => {
                let layer = |(spatial, temporal)| Layer { spatial, temporal };
                selector.set_target(target.map(layer));
                assert_eq!(selector.target().is_some(), target.is_some());
            }
            Step::Packet { encoding, ahead, marker, payload, element } => {
                let (mut payload, element) = (payload.0, element.map(|element| element.0));
                let index = usize::from(encoding % 3);
                seqs[index].0 = seqs[index].0.saturating_add_signed(ahead.into());
                let structure = &mut structures[index];
                let frame = FrameInfo::read(codec, &payload, marker, element.as_deref(), structure);
                let verdict = selector.admit(index as u8, seqs[index], &frame);
                check(&selector, &frame, verdict);
                let shift = picture_ids.shift(&frame, verdict);
                shift.apply(codec, &mut payload);
                let again = FrameInfo::read(codec, &payload, marker, element.as_deref(), structure);
                assert_eq!((again.spatial, again.temporal), (frame.spatial, frame.temporal));
                assert_eq!(again.key_frame, frame.key_frame);
                if let Some(element) = element {
                    rewrite_targets(&element, structure.dependency.as_ref());
                }
            }
        }
    }
}

fn check(selector: &Selector, frame: &FrameInfo, verdict: Verdict) {
    if let Verdict::Forward { switch: true, .. } = verdict {
        assert!(frame.key_frame, "streams begin with key frames");
    }
    assert!(selector.target().is_some() || verdict == Verdict::Ignore);
    assert!(selector.target().is_some() || selector.needs_key_frame().is_none());
}

fn rewrite_targets(element: &[u8], structure: Option<&dependency::Structure>) {
    let mut known = structure.cloned();
    let Ok(before) = dependency::Frame::read(element, &mut known) else { return };
    let active = structure.map_or(1, |structure| structure.targets_within(0, 0));
    let mut out = [0; 255];
    let Some(len) = dependency::with_active_targets(element, structure, active, &mut out) else {
        return;
    };
    let after = dependency::Frame::read(&out[..len], &mut known).expect("what is written is read");
    assert_eq!(after.descriptor.frame_number, before.descriptor.frame_number);
    assert_eq!((after.references, after.spatial), (before.references, before.spatial));
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    #[test]
    fn damaged_packets_break_nothing() {
        crate::wire::fuzz::seeds::sweep("layers", 1, super::layers);
    }

    #[test]
    fn random_bytes_break_nothing() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut data = [0; 600];
        for len in 0..3000 {
            rng.fill_bytes(&mut data);
            super::layers(&data[..len % 600]);
        }
    }
}
