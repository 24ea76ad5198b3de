//! What is asked: questions as complete queries, and the order in which they are asked. Everything is drawn from a
//! fixed seed, so that two runs ask the same.

/// What a right answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Positive,
    NoData,
    NxDomain,
}

/// A query as a stub resolver sends it: RD set, no EDNS, ID left 0.
pub(crate) struct Question {
    pub(crate) wire: Box<[u8]>,
    pub(crate) expect: Expect,
}

pub(crate) struct Workload {
    pub(crate) questions: Vec<Question>,
    /// Indexes into `questions`, asked one after the other and then again from the start.
    pub(crate) order: Vec<u32>,
}

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;

const DRAWS: usize = 1 << 16;
pub(crate) const NAMESPACES: usize = 4;
pub(crate) const SERVICES: usize = 100;
const EXTERNAL: usize = 250;

impl Workload {
    /// 1,000 external names, type A, drawn by Zipf's law with exponent 1.
    pub(crate) fn hot() -> Self {
        let questions: Vec<_> = (0..1000).map(|i| question(&external(i), A, Expect::Positive)).collect();
        let mut random = Random::new(1);
        let zipf = Zipf::new(questions.len());
        let order = (0..DRAWS).map(|_| zipf.draw(&mut random) as u32).collect();
        Self { questions, order }
    }

    /// Pods with `ndots:5` and the usual search path. Half of the names they look up are services of their own
    /// namespace (answered by the first query), half are external (three names that do not exist, then the bare
    /// name); every name is asked for A and for AAAA. Services have no AAAA.
    pub(crate) fn ndots() -> Self {
        let mut questions = Vec::new();
        let mut seen = std::collections::HashMap::new();
        let mut order = Vec::with_capacity(DRAWS + 8);
        let mut random = Random::new(2);
        let (services, externals) = (Zipf::new(SERVICES), Zipf::new(EXTERNAL));
        while order.len() < DRAWS {
            let namespace = random.below(NAMESPACES);
            let steps = if random.below(2) == 0 {
                vec![(format!("svc-{}.team-{namespace}.svc.cluster.local", services.draw(&mut random)), true)]
            } else {
                let bare = external(externals.draw(&mut random));
                vec![
                    (format!("{bare}.team-{namespace}.svc.cluster.local"), false),
                    (format!("{bare}.svc.cluster.local"), false),
                    (format!("{bare}.cluster.local"), false),
                    (bare, true),
                ]
            };
            for (name, exists) in steps {
                for kind in [A, AAAA] {
                    let expect = match (exists, kind == AAAA && name.ends_with(".cluster.local")) {
                        (false, _) => Expect::NxDomain,
                        (true, true) => Expect::NoData,
                        (true, false) => Expect::Positive,
                    };
                    let index = *seen.entry((name.clone(), kind)).or_insert_with(|| {
                        questions.push(question(&name, kind, expect));
                        questions.len() as u32 - 1
                    });
                    order.push(index);
                }
            }
        }
        Self { questions, order }
    }

    /// The Services of all namespaces by their full names, for A and AAAA, drawn by Zipf's law.
    pub(crate) fn services() -> Self {
        let mut questions = Vec::new();
        for i in 0..SERVICES * NAMESPACES {
            let name = format!("svc-{}.team-{}.svc.cluster.local", i / NAMESPACES, i % NAMESPACES);
            questions.push(question(&name, A, Expect::Positive));
            questions.push(question(&name, AAAA, Expect::NoData));
        }
        let mut random = Random::new(3);
        let zipf = Zipf::new(questions.len());
        let order = (0..DRAWS).map(|_| zipf.draw(&mut random) as u32).collect();
        Self { questions, order }
    }

    /// `count` external names that only a workload with the same `tag` asks for, each once.
    pub(crate) fn unique(tag: &str, count: usize) -> Self {
        let questions =
            (0..count).map(|i| question(&format!("{tag}-{i}.{}", external(i)), A, Expect::Positive)).collect();
        Self { questions, order: (0..count as u32).collect() }
    }

    /// Every question of this workload once: what fills a cache.
    pub(crate) fn once(&self) -> Vec<u32> {
        (0..self.questions.len() as u32).collect()
    }
}

fn external(i: usize) -> String {
    let host = ["www", "api", "cdn", "images"][i % 4];
    format!("{host}-{i}.site-{}.example.com", i % 97)
}

fn question(name: &str, kind: u16, expect: Expect) -> Question {
    let mut wire = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire.extend_from_slice(&kind.to_be_bytes());
    wire.extend_from_slice(&[0, 1]);
    Question { wire: wire.into(), expect }
}

/// SplitMix64: short, and good enough to draw names with.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks 0.. with weight 1 / (rank + 1).
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=ranks)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { cumulative }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let point = random.unit() * total;
        self.cumulative.partition_point(|&edge| edge <= point).min(self.cumulative.len() - 1)
    }
}
