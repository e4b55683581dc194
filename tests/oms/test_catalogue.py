from __future__ import annotations

from oms_events.oms.catalogue import EventFamily, EventType

CATALOGUE = {
    "schema": {"created", "updated", "deleted", "validated"},
    "objecttype": {"created", "updated", "deleted"},
    "property": {"created", "updated", "deleted"},
    "linktype": {"created", "updated", "deleted"},
    "branch": {"created", "updated", "deleted", "merged"},
    "proposal": {"created", "updated", "approved", "rejected", "merged"},
    "action": {"started", "completed", "failed", "cancelled"},
    "system": {"healthcheck", "error", "maintenance"},
}


def test_catalogue_has_exactly_these_types() -> None:
    expected = {
        f"com.foundry.oms.{family}.{change}" for family, changes in CATALOGUE.items() for change in changes
    }
    assert set(EventType) == expected


def test_types_know_their_family_and_change() -> None:
    for event_type in EventType:
        assert event_type == f"com.foundry.oms.{event_type.family}.{event_type.change}"
    assert EventType.LINK_TYPE_DELETED.family is EventFamily.LINK_TYPE
    assert set(EventFamily) == set(CATALOGUE)
