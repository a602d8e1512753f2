use proptest::prelude::*;

use super::*;

fn row(kind: Kind, zone: &str) -> Row {
    let mut record = Instance::blank("n", "r", 0);
    (record.kind, record.zone) = (kind, zone.to_owned());
    Row { record: Arc::new(record), written: Revision::NEVER, shown: Revision::NEVER }
}

proptest! {
    /// What is counted along is what a count of all would find.
    #[test]
    fn the_census_is_a_count(
        steps in prop::collection::vec((0u8..6, 0u8..3, 0usize..3, any::<bool>()), 1..60),
    ) {
        let zones = ["", "z1", "z2"];
        let mut kept = Kept::default();
        for (id, what, zone, is_lasting) in steps {
            let id = InstanceId::new(id.to_string()).unwrap();
            let kind = if is_lasting { Kind::Persistent } else { Kind::Ephemeral };
            let was_there = kept.instances().contains_key(&id);
            if what == 0 {
                prop_assert_eq!(kept.take(&id), was_there);
            } else {
                prop_assert_eq!(kept.put(id, row(kind, zones[zone])), !was_there);
            }
            for zone in zones {
                let all = kept.instances().values().map(|row| &row.record);
                let counted = all.filter(|record| record.kind == Kind::Ephemeral);
                let service = u32::try_from(counted.clone().count()).unwrap();
                let in_zone = counted.filter(|record| record.zone == zone).count();
                let want = Census { service, zone: u32::try_from(in_zone).unwrap() };
                prop_assert_eq!(kept.census(zone), want);
            }
        }
    }
}
