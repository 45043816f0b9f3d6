"""What Grafana shows of the house: the overview, one machine, experts and gateway, power and energy."""

from pyinfra_deploys.monitoring.panels import Dashboard, Panel, Query

_RATE = "[$__rate_interval]"
_NODE = '{node=~"$node"}'
_EXPERT = '{expert=~"$expert"}'
_DISKS = 'fstype!~"tmpfs|ramfs|squashfs|erofs|iso9660|overlay|vfat"'
_BUCKETS = "rouse_gateway_first_token_seconds_bucket"

HOUSE = Dashboard(
    uid="rouse-house",
    title="Rouse: house",
    panels=(
        Panel(
            "Machines awake",
            (Query('sum(rouse_house_node_state{state="awake"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Machines asleep",
            (Query('sum(rouse_house_node_state{state=~"asleep|off"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Machines lost",
            (Query('sum(rouse_house_node_state{state="lost"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Alerts",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Firing alerts",
            (Query('ALERTS{alertstate="firing"}'),),
            kind="table",
            width=24,
            height=6,
        ),
        Panel(
            "How the machines are",
            (
                Query(
                    'rouse_house_node_state{state="awake"} * 3 + on (node) rouse_house_node_state{state="asleep"} * 2 '
                    '+ on (node) rouse_house_node_state{state="off"}',
                    "{{node}}",
                ),
            ),
            kind="state-timeline",
            names=(("0", "lost"), ("1", "off"), ("2", "asleep"), ("3", "awake")),
            width=24,
        ),
        Panel(
            "Requests of the house",
            (Query(f"sum by (agent, outcome) (rate(rouse_agent_requests_total{_RATE}))", "{{agent}}: {{outcome}}"),),
            unit="reqps",
        ),
        Panel(
            "Time to the first token",
            (
                Query(f"histogram_quantile(0.5, sum by (le) (rate({_BUCKETS}{_RATE})))", "half"),
                Query(f"histogram_quantile(0.95, sum by (le) (rate({_BUCKETS}{_RATE})))", "95 %"),
            ),
            unit="s",
        ),
        Panel(
            "Age of the last good backup",
            (
                Query(
                    "time() - (rouse_backup_last_success_timestamp_seconds > 0)",
                    "{{node}}",
                ),
            ),
            unit="s",
            kind="bargauge",
        ),
        Panel(
            "Messages on the bus",
            (Query(f"sum by (node) (rate(rouse_bus_received_messages_total{_RATE}))", "{{node}}"),),
        ),
    ),
)

MACHINE = Dashboard(
    uid="rouse-machine",
    title="Rouse: machine",
    choices=(("node", "node_uname_info"),),
    panels=(
        Panel(
            "Processor",
            (
                Query(
                    f'1 - avg by (node) (rate(node_cpu_seconds_total{{mode="idle",node=~"$node"}}{_RATE}))', "{{node}}"
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "Memory in use",
            (Query(f"1 - node_memory_MemAvailable_bytes{_NODE} / node_memory_MemTotal_bytes{_NODE}", "{{node}}"),),
            unit="percentunit",
        ),
        Panel("Temperature", (Query(f"rouse_node_temperature_celsius{_NODE}", "{{node}}"),), unit="celsius"),
        Panel(
            "Free on file systems",
            (
                Query(
                    f'node_filesystem_avail_bytes{{{_DISKS},node=~"$node"}} '
                    f'/ node_filesystem_size_bytes{{{_DISKS},node=~"$node"}}',
                    "{{node}} {{mountpoint}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "Reads and writes of disks",
            (
                Query(
                    f"sum by (node, device) (rate(node_disk_read_bytes_total{_NODE}{_RATE}))",
                    "{{node}} {{device}} read",
                ),
                Query(
                    f"sum by (node, device) (rate(node_disk_written_bytes_total{_NODE}{_RATE}))",
                    "{{node}} {{device}} written",
                ),
            ),
            unit="Bps",
        ),
        Panel(
            "Network",
            (
                Query(
                    f'rate(node_network_receive_bytes_total{{device!="lo",node=~"$node"}}{_RATE})',
                    "{{node}} {{device}} in",
                ),
                Query(
                    f'rate(node_network_transmit_bytes_total{{device!="lo",node=~"$node"}}{_RATE})',
                    "{{node}} {{device}} out",
                ),
            ),
            unit="Bps",
        ),
        Panel("Load", (Query(f"node_load1{_NODE}", "{{node}}"),)),
        Panel(
            "Memory of the hub and the node daemon",
            (Query(f"process_resident_memory_bytes{_NODE}", "{{node}} {{job}}"),),
            unit="bytes",
        ),
        Panel(
            "Time since start", (Query(f"time() - node_boot_time_seconds{_NODE}", "{{node}}"),), unit="s", kind="stat"
        ),
        Panel(
            "Size of the last backup",
            (Query(f"rouse_backup_size_bytes{_NODE}", "{{node}}"),),
            unit="bytes",
            kind="stat",
        ),
    ),
)

EXPERTS = Dashboard(
    uid="rouse-experts",
    title="Rouse: experts and gateway",
    choices=(("expert", "rouse_node_expert_state"),),
    panels=(
        Panel(
            "Experts ready",
            (Query('sum(rouse_node_expert_state{state="ready"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Experts failed",
            (Query('sum(rouse_node_expert_state{state="failed"}) or vector(0)'),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel("Requests in the gateway", (Query("rouse_gateway_active_requests"),), kind="stat", width=6, height=4),
        Panel("Requests that wait", (Query("rouse_gateway_waiting_requests"),), kind="stat", width=6, height=4),
        Panel(
            "Answers by status",
            (Query(f"sum by (status) (rate(rouse_gateway_requests_total{_RATE}))", "{{status}}"),),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Tokens a second",
            (
                Query(
                    f"sum by (node, expert) (rate(rouse_node_expert_generated_tokens_total{_EXPERT}{_RATE}))",
                    "{{expert}} on {{node}}",
                ),
            ),
        ),
        Panel(
            "Time to the first token, 95 %",
            (
                Query(
                    f"histogram_quantile(0.95, sum by (le, expert) (rate({_BUCKETS}{_EXPERT}{_RATE})))",
                    "{{expert}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Time between pieces, 95 %",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, expert) "
                    f"(rate(rouse_gateway_inter_chunk_seconds_bucket{_EXPERT}{_RATE})))",
                    "{{expert}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Requests in experts",
            (
                Query(f"rouse_node_expert_active_requests{_EXPERT}", "{{expert}} on {{node}}: answered"),
                Query(f"rouse_node_expert_queued_requests{_EXPERT}", "{{expert}} on {{node}}: waiting"),
            ),
        ),
        Panel(
            "Failovers and restarts in an hour",
            (
                Query("increase(rouse_gateway_failovers_total[1h])", "{{expert}}: failover"),
                Query("increase(rouse_node_expert_restarts_total[1h])", "{{expert}} on {{node}}: restart"),
            ),
        ),
        Panel(
            "Who chose the expert",
            (
                Query(
                    f"sum by (router, expert) (rate(rouse_gateway_routing_decisions_total{_RATE}))",
                    "{{router}}: {{expert}}",
                ),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Circuit breakers open",
            (Query('rouse_gateway_breaker_state{state="open"}', "{{expert}} on {{node}}"),),
        ),
    ),
)

POWER = Dashboard(
    uid="rouse-power",
    title="Rouse: power and energy",
    choices=(("node", "rouse_house_node_state"),),
    panels=(
        Panel(
            "Power of the house",
            (Query("sum(rouse_house_node_power_watts)"),),
            unit="watt",
            kind="stat",
            width=8,
            height=4,
        ),
        Panel(
            "Used",
            (Query("sum(increase(rouse_house_node_energy_used_kwh_total[$__range]))"),),
            unit="kwatth",
            kind="stat",
            width=8,
            height=4,
        ),
        Panel(
            "Saved by sleeping",
            (Query("sum(increase(rouse_house_node_energy_saved_kwh_total[$__range]))"),),
            unit="kwatth",
            kind="stat",
            width=8,
            height=4,
        ),
        Panel(
            "Power",
            (Query(f"rouse_house_node_power_watts{_NODE}", "{{node}} ({{source}})"),),
            unit="watt",
            stacked=True,
            width=24,
        ),
        Panel(
            "Used in a day",
            (Query(f"increase(rouse_house_node_energy_used_kwh_total{_NODE}[1d])", "{{node}}"),),
            unit="kwatth",
        ),
        Panel(
            "Saved in a day",
            (Query(f"increase(rouse_house_node_energy_saved_kwh_total{_NODE}[1d])", "{{node}}"),),
            unit="kwatth",
        ),
        Panel(
            "Asleep",
            (
                Query(
                    'avg_over_time((sum by (node) (rouse_house_node_state{state=~"asleep|off",node=~"$node"}))[1d:5m])',
                    "{{node}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel("Unused since", (Query(f"rouse_node_idle_seconds{_NODE}", "{{node}}"),), unit="s"),
        Panel(
            "Sleeps in a day",
            (
                Query(f"increase(rouse_node_sleeps_total{_NODE}[1d])", "{{node}}: {{method}}"),
                Query(f"increase(rouse_node_refused_sleeps_total{_NODE}[1d])", "{{node}}: refused"),
            ),
        ),
        Panel(
            "Time to get ready for sleep, 95 %",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, node) "
                    f"(rate(rouse_node_sleep_preparation_seconds_bucket{_NODE}[1d])))",
                    "{{node}}",
                ),
            ),
            unit="s",
        ),
    ),
)

DASHBOARDS = (HOUSE, MACHINE, EXPERTS, POWER)
