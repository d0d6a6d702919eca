//! Synthetic encoders: real headers in front of payloads that say the truth about themselves.

/// How an encoder arranges its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub format: Format,
    /// 1 to 3.
    pub spatial: u8,
    /// 1 or 3.
    pub temporal: u8,
    /// Spatial layers refer to each other in key pictures only.
    pub key_svc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Vp8,
    Vp9Flexible,
    /// References follow the pattern that key pictures announce.
    Vp9Pattern,
    Av1,
    H264,
    /// H.264 whose layers a dependency descriptor tells.
    H264Layered,
}

impl Format {
    /// Whether packets carry a dependency descriptor, which numbers frames.
    pub fn is_described(self) -> bool {
        matches!(self, Self::Av1 | Self::H264Layered)
    }
}

/// What a packet says about itself, at the end of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub encoding: u8,
    /// Counts the layer frames of the encoding, in the order of decoding.
    pub frame: u32,
    pub picture: u32,
    pub spatial: u8,
    pub temporal: u8,
    /// Belongs to a key picture.
    pub key: bool,
    pub index: u8,
    pub count: u8,
    /// The frames that this one refers to.
    pub references: Vec<u32>,
}

/// One packet, without RTP header.
#[derive(Clone, Debug)]
pub struct Packet {
    pub seq: u64,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub dependency: Option<Vec<u8>>,
}

/// One encoding's encoder.
pub struct Encoder {
    pub shape: Shape,
    encoding: u8,
    /// Spatial layers that are being sent.
    pub active: u8,
    /// The next packet's number.
    pub seq: u64,
    frame: u32,
    picture: u32,
    /// Where the pattern began: the last key picture.
    key_at: u32,
    /// Where each spatial layer began.
    layer_at: [u32; 3],
    /// Frame numbers of the pictures, by picture and layer.
    frames: Vec<[Option<u32>; 3]>,
    tl0: u8,
    /// What the first picture id, TL0PICIDX and frame number are above 0.
    offset: u16,
    /// Picture ids have 15 bits, not 7.
    pub long_ids: bool,
}

/// Pictures after which the references repeat.
const PERIOD: u32 = 8;

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 40;

impl Encoder {
    pub fn new(shape: Shape, encoding: u8, seq: u64, offset: u16) -> Self {
        Self {
            shape,
            encoding,
            active: shape.spatial,
            seq,
            frame: 0,
            picture: 0,
            key_at: 0,
            layer_at: [0; 3],
            frames: Vec::new(),
            tl0: offset as u8,
            offset,
            long_ids: true,
        }
    }

    /// Whether layers may come and go at the next picture without a key frame.
    pub fn may_change_layers(&self) -> bool {
        !self.shape.key_svc && (self.picture - self.key_at).is_multiple_of(PERIOD)
    }

    /// The packets of the next picture, `packets` for each frame, with `active` spatial layers.
    pub fn picture(&mut self, key: bool, active: u8, packets: u8) -> Vec<Packet> {
        let key = key || self.picture == 0;
        if key {
            self.key_at = self.picture;
            self.layer_at = [self.picture; 3];
        }
        for spatial in self.active..active {
            self.layer_at[usize::from(spatial)] = self.picture;
        }
        self.active = active;
        let (temporal, distances) = self.pattern(self.picture);
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.frames.push([None; 3]);
        let mut sent = Vec::new();
        for spatial in 0..active {
            let begins = self.layer_at[usize::from(spatial)] == self.picture;
            let inter_layer = spatial > 0 && (key || !self.shape.key_svc);
            let distances = if begins { &[][..] } else { &distances[..] };
            let frame = Frame { spatial, temporal, key, inter_layer, distances };
            self.frames[self.picture as usize][usize::from(spatial)] = Some(self.frame);
            for index in 0..packets {
                sent.push(self.packet(&frame, index, packets));
            }
            self.frame += 1;
        }
        self.picture += 1;
        sent
    }

    /// Temporal layer, and how many pictures back the references lie. Odd cycles refer to their own layers too.
    fn pattern(&self, picture: u32) -> (u8, Vec<u32>) {
        if self.shape.temporal == 1 {
            return (0, vec![1]);
        }
        match (picture - self.key_at) % PERIOD {
            0 | 4 => (0, vec![4]),
            1 => (2, vec![1]),
            2 => (1, vec![2]),
            3 if self.shape.format == Format::Vp8 => (2, vec![1, 3]),
            3 => (2, vec![1]),
            5 => (2, vec![1, 2]),
            6 => (1, vec![2, 4]),
            _ => (2, vec![1, 2]),
        }
    }

    fn packet(&mut self, frame: &Frame<'_>, index: u8, count: u8) -> Packet {
        let references: Vec<u32> = {
            let picture = self.picture as usize;
            let layer = usize::from(frame.spatial);
            let earlier = frame.distances.iter().map(|distance| {
                self.frames[picture - *distance as usize][layer]
                    .expect("sent since the layer began")
            });
            let below = frame.inter_layer.then(|| self.frames[picture][layer - 1].expect("sent"));
            below.into_iter().chain(earlier).collect()
        };
        let (first, last) = (index == 0, index + 1 == count);
        let mut payload = match self.shape.format {
            Format::Vp8 => self.vp8(frame, first),
            Format::Vp9Flexible | Format::Vp9Pattern => self.vp9(frame, first, last),
            Format::Av1 => {
                vec![if first && frame.key && frame.spatial == 0 { 0x18 } else { 0x10 }, 0x30]
            }
            Format::H264 | Format::H264Layered => match (frame.key, index) {
                (true, 0) => vec![0x67, 0x42],
                (true, 1) => vec![0x7c, 0x85],
                (true, _) => vec![0x7c, 0x05],
                (false, _) => vec![0x41, 0x9a],
            },
        };
        let dependency = self
            .shape
            .format
            .is_described()
            .then(|| self.dependency(frame, &references, first, last));
        let stamp = Stamp {
            encoding: self.encoding,
            frame: self.frame,
            picture: self.picture,
            spatial: frame.spatial,
            temporal: frame.temporal,
            key: frame.key,
            index,
            count,
            references,
        };
        payload.extend(stamp.to_bytes());
        self.seq += 1;
        let marker = last && frame.spatial + 1 == self.active;
        Packet { seq: self.seq - 1, marker, payload, dependency }
    }

    fn picture_id(&self) -> Vec<u8> {
        let id = (self.picture as u16).wrapping_add(self.offset);
        if self.long_ids { (id | 0x8000).to_be_bytes().to_vec() } else { vec![id as u8 & 0x7f] }
    }

    /// RFC 7741 §4.2.
    fn vp8(&self, frame: &Frame<'_>, first: bool) -> Vec<u8> {
        let has_layers = self.shape.temporal > 1;
        let mut payload = vec![0x80 | u8::from(first) << 4, if has_layers { 0xe0 } else { 0x80 }];
        payload.extend(self.picture_id());
        if has_layers {
            let refers_to_base =
                frame.distances.iter().all(|distance| self.pattern(self.picture - distance).0 == 0);
            payload.extend([self.tl0, frame.temporal << 6 | u8::from(refers_to_base) << 5]);
        }
        payload.push(u8::from(!frame.key));
        payload
    }

    /// RFC 9628 §4.2.
    fn vp9(&self, frame: &Frame<'_>, first: bool, last: bool) -> Vec<u8> {
        let flexible = self.shape.format == Format::Vp9Flexible;
        let has_structure = frame.key && first && frame.spatial == 0;
        let inter_picture = !frame.distances.is_empty();
        let flags = [true, inter_picture, true, flexible, first, last, has_structure, false];
        let mut payload = vec![flags.iter().fold(0, |byte, flag| byte << 1 | u8::from(*flag))];
        payload.extend(self.picture_id());
        let refers_below = frame
            .distances
            .iter()
            .all(|distance| self.pattern(self.picture - distance).0 < frame.temporal);
        let up = u8::from(refers_below && frame.temporal > 0);
        let layers = frame.temporal << 5 | up << 4 | frame.spatial << 1;
        payload.push(layers | u8::from(frame.inter_layer));
        if !flexible {
            payload.push(self.tl0);
        }
        if flexible && inter_picture {
            let count = frame.distances.len();
            let listed = frame.distances.iter().enumerate();
            payload.extend(listed.map(|(at, d)| (*d as u8) << 1 | u8::from(at + 1 < count)));
        }
        if has_structure {
            let has_group = !flexible;
            payload.push((self.shape.spatial - 1) << 5 | u8::from(has_group) << 3);
            if has_group {
                payload.push(PERIOD as u8);
                for at in 0..PERIOD {
                    let (temporal, distances) = self.pattern(self.key_at + at);
                    payload.push(temporal << 5 | (distances.len() as u8) << 2);
                    payload.extend(distances.iter().map(|distance| *distance as u8));
                }
            }
        }
        payload.push(0x82);
        payload
    }

    /// AV1 RTP appendix A.8.2: one template per layer, and each frame's own list of references.
    fn dependency(
        &self,
        frame: &Frame<'_>,
        references: &[u32],
        first: bool,
        last: bool,
    ) -> Vec<u8> {
        let mut bits = BitString::default();
        let template = frame.spatial * self.shape.temporal + frame.temporal;
        bits.push(first.into(), 1).push(last.into(), 1).push(template.into(), 6);
        bits.push(u32::from((self.frame as u16).wrapping_add(self.offset)), 16);
        let has_structure = frame.key && first && frame.spatial == 0;
        bits.push(has_structure.into(), 1).push(0b0010, 4);
        if has_structure {
            self.structure(&mut bits);
        }
        for reference in references {
            let distance = self.frame - reference;
            bits.push(2, 2).push(distance - 1, 8);
        }
        bits.push(0, 2);
        bits.bytes
    }

    fn structure(&self, bits: &mut BitString) {
        let layers: Vec<(u8, u8)> = (0..self.shape.spatial)
            .flat_map(|spatial| (0..self.shape.temporal).map(move |temporal| (spatial, temporal)))
            .collect();
        bits.push(0, 6).push(layers.len() as u32 - 1, 5);
        for next in &layers[1..] {
            bits.push(if next.1 == 0 { 2 } else { 1 }, 2);
        }
        bits.push(3, 2);
        for template in &layers {
            for target in &layers {
                let is_part = template.0 <= target.0 && template.1 <= target.1;
                bits.push(if is_part { 3 } else { 0 }, 2);
            }
        }
        // No references in templates, no chains, no resolutions.
        bits.push(0, layers.len());
        let chains_width = (layers.len() as u32 + 1).ilog2() as usize;
        bits.push(0, chains_width).push(0, 1);
    }
}

/// One layer frame while its packets are written.
struct Frame<'a> {
    spatial: u8,
    temporal: u8,
    key: bool,
    inter_layer: bool,
    distances: &'a [u32],
}

#[derive(Default)]
struct BitString {
    bytes: Vec<u8>,
    len: usize,
}

impl BitString {
    fn push(&mut self, value: u32, width: usize) -> &mut Self {
        for shift in (0..width).rev() {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            self.bytes[self.len / 8] |= ((value >> shift & 1) as u8) << (7 - self.len % 8);
            self.len += 1;
        }
        self
    }
}

impl Stamp {
    fn to_bytes(&self) -> [u8; STAMP_LEN] {
        let mut bytes = [0; STAMP_LEN];
        let references = self.references.len() as u8;
        let small = [
            self.encoding,
            self.spatial,
            self.temporal,
            self.key.into(),
            self.index,
            self.count,
            references,
            0,
        ];
        bytes[..8].copy_from_slice(&small);
        let words = [self.frame, self.picture].into_iter().chain(self.references.iter().copied());
        for (chunk, word) in bytes[8..].chunks_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads the stamp of a payload.
    pub fn read(payload: &[u8]) -> Self {
        let bytes = &payload[payload.len() - STAMP_LEN..];
        let word = |at: usize| {
            u32::from_be_bytes(bytes[8 + 4 * at..12 + 4 * at].try_into().expect("four bytes"))
        };
        Self {
            encoding: bytes[0],
            spatial: bytes[1],
            temporal: bytes[2],
            key: bytes[3] == 1,
            index: bytes[4],
            count: bytes[5],
            frame: word(0),
            picture: word(1),
            references: (0..usize::from(bytes[6])).map(|at| word(2 + at)).collect(),
        }
    }
}
