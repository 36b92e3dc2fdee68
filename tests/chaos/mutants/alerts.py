"""Alerts and their notices."""

from chaos.mutant import SCHEMA, Edit, Mutant

MUTANTS = [
    Mutant(
        "how a slot ended is not noted for alert rules",
        (Edit(SCHEMA, "PERFORM routines.note_end(NEW);", "NULL;", "follow_end"),),
        {"alert"},
    ),
    Mutant(
        "an alert is told, and its notice is not noted",
        (Edit(SCHEMA, "WHERE id = ANY (alert_ids);", "WHERE id = ANY (alert_ids) AND false;", "note_notice"),),
        test="sql/alerts/test_alerts.py::test_it_opens_one_alert_with_one_notice_however_often_it_is_judged[failed]",
        in_ci=True,
    ),
]
