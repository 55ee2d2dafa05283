package registrar

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/admin"
	"rserpool/registrar/handlespace"
)

// metrics are one registrar's, in a registry of their own. The names are API.
type metrics struct {
	registry *prometheus.Registry
	space    *handlespace.Space

	registrations   *prometheus.CounterVec // result
	accepted        prometheus.Counter     // of registrations
	deregistrations *prometheus.CounterVec // result
	resolutions     *prometheus.CounterVec // pool, policy, result
	resolutionTime  prometheus.Histogram
	removals        *prometheus.CounterVec // cause
	reports         *prometheus.CounterVec // result
	keepAlives      *prometheus.CounterVec // result
	updates         prometheus.Counter
	associations    *prometheus.GaugeVec   // transport
	closed          *prometheus.CounterVec // reason
	pathChanges     *prometheus.CounterVec // state
	decodeErrors    *prometheus.CounterVec // protocol, cause
	peerChanges     *prometheus.CounterVec // state
	messages        *prometheus.CounterVec // protocol, type
	limits          *prometheus.CounterVec // limit
	drops           *prometheus.CounterVec // queue
	loopWait        prometheus.Histogram
	reloadOK        prometheus.Gauge

	asapTypes [asapTypes]prometheus.Counter
	labels    poolLabels
}

// asapTypes is the number of ASAP message types, 0 included.
const asapTypes = 15

func newMetrics(version string, poolLabelCap int) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rserpool_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.registrations = counter("registrations_total", "Registrations answered, re-registrations included.", "result")
	m.accepted = m.registrations.WithLabelValues(resultAccepted)
	m.deregistrations = counter("deregistrations_total", "Deregistrations answered.", "result")
	m.resolutions = counter("resolutions_total", "Handle resolutions answered.", "pool", "policy", "result")
	m.removals = counter("element_removals_total", "Elements removed, or marked suspect instead.", "cause")
	m.reports = counter("unreachable_reports_total", "Reports of unreachable elements.", "result")
	m.keepAlives = counter("keep_alives_total", "Keep-alives by what became of them.", "result")
	m.closed = counter("connections_closed_total", "Connections ended, by reason.", "reason")
	m.pathChanges = counter("transport_path_changes_total", "Paths of multi-homed associations that went up or down.", "state")
	m.peerChanges = counter("peer_changes_total", "States that registrars outside the ring have got.", "state")
	m.decodeErrors = counter("decode_errors_total", "Messages that could not be decoded.", "protocol", "cause")
	m.messages = counter("messages_received_total", "Messages received, by type.", "protocol", "type")
	m.limits = counter("limit_exceeded_total", "Requests refused or connections cut because of a configured limit.", "limit")
	m.drops = counter("queue_drops_total", "Messages dropped because a queue was full.", "queue")

	m.updates = prometheus.NewCounter(prometheus.CounterOpts{Name: "rserpool_updates_sent_total", Help: "Pool changes sent to subscribers."})
	m.associations = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rserpool_transport_associations", Help: "Associations and connections that are up."}, []string{"transport"})
	m.resolutionTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "rserpool_resolution_seconds", Help: "Time to answer a handle resolution, sampled.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10)})
	m.loopWait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "rserpool_loop_wait_seconds", Help: "Time that an event waited for the owner loop.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12)})
	m.reloadOK = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rserpool_config_last_reload_successful", Help: "1 if the latest configuration was taken."})
	m.reloadOK.Set(1)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rserpool_build_info", Help: "Always 1; the version is a label."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.updates, m.associations, m.resolutionTime, m.loopWait, m.reloadOK, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for t := range m.asapTypes {
		m.asapTypes[t] = m.messages.WithLabelValues(string(protoASAP), strings.ToLower(asap.MessageType(t).String()))
	}
	m.labels.limit, m.labels.known = poolLabelCap, make(map[param.PoolHandle]bool)
	return m
}

// otherPools is the label of pools beyond the number that metrics name.
const otherPools = "other"

// poolLabels gives the first pools a label of their own. It is used by readers
// concurrently, but rarely: they keep what they got.
type poolLabels struct {
	mu    sync.Mutex
	limit int
	known map[param.PoolHandle]bool
	epoch atomic.Uint64 // grows when a label was freed: what readers keep is void
}

// label returns the label of a pool. The mutex is held.
func (l *poolLabels) label(handle param.PoolHandle) string {
	if !l.known[handle] {
		if len(l.known) >= l.limit {
			return otherPools
		}
		l.known[handle] = true
	}
	return admin.EscapeHandle(handle)
}

// forget frees a pool's label, after the pool has gone.
func (m *metrics) forget(handle param.PoolHandle) {
	m.labels.mu.Lock()
	defer m.labels.mu.Unlock()
	if m.labels.known[handle] {
		delete(m.labels.known, handle)
		m.labels.epoch.Add(1)
		m.resolutions.DeletePartialMatch(prometheus.Labels{"pool": admin.EscapeHandle(handle)})
	}
}

// tally counts the resolutions of one pool by one reader; it spares looking up
// the counters each time, and lets readers share them seldom.
type tally struct {
	m                 *metrics
	accepted, unknown prometheus.Counter
	found, missing    int // not yet counted there
	count             int
}

// resolutionSampling is how often the time of a resolution is measured.
const resolutionSampling = 64

// begin returns the time for every so manieth resolution, else zero.
func (t *tally) begin() time.Time {
	if t.count++; t.count%resolutionSampling != 0 {
		return time.Time{}
	}
	return time.Now()
}

func (t *tally) end(start time.Time, found bool) {
	if found {
		t.found++
	} else {
		t.missing++
	}
	if !start.IsZero() {
		t.m.resolutionTime.Observe(time.Since(start).Seconds())
	}
}

// settle brings the counters up to date.
func (t *tally) settle() {
	if t.found > 0 {
		t.accepted.Add(float64(t.found))
	}
	if t.missing > 0 {
		t.unknown.Add(float64(t.missing))
	}
	t.found, t.missing = 0, 0
}

// tallies are those of one reader. Only the latest one can be unsettled.
type tallies struct {
	messages [asapTypes]int // received and not yet counted, by type
	byPool   map[param.PoolHandle]*tally
	none     *tally // of pools that don't exist
	epoch    uint64
	handle   param.PoolHandle // asked for last
	latest   *tally
}

// tallyLimit bounds the pools that one reader keeps counters of.
const tallyLimit = 64

func (t *tallies) of(m *metrics, handle param.PoolHandle) *tally {
	epoch := m.labels.epoch.Load()
	if t.latest != nil && epoch == t.epoch && handle == t.handle {
		return t.latest
	}
	if t.latest != nil {
		t.latest.settle()
	}
	if t.byPool == nil || epoch != t.epoch || len(t.byPool) > tallyLimit {
		t.byPool, t.epoch = make(map[param.PoolHandle]*tally), epoch
	}
	one := t.byPool[handle]
	if one == nil {
		pool, ok := m.space.Pool(handle)
		if !ok {
			return t.missing(m)
		}
		handle = pool.Handle // a reader's own copies would take memory
		one = m.tally(handle)
		t.byPool[handle] = one
	}
	t.handle, t.latest = handle, one
	return one
}

// missing returns the counters of all pools that don't exist: which ones were
// asked for is not remembered.
func (t *tallies) missing(m *metrics) *tally {
	if t.none == nil {
		t.none = m.tally("")
	}
	t.handle, t.latest = "", t.none
	return t.none
}

// received counts a message.
func (t *tallies) received(typ asap.MessageType) {
	if int(typ) < len(t.messages) {
		t.messages[typ]++
	}
}

// settle brings all counters up to date.
func (t *tallies) settle(m *metrics) {
	for typ, n := range t.messages {
		if n > 0 {
			m.asapTypes[typ].Add(float64(n))
			t.messages[typ] = 0
		}
	}
	if t.latest != nil {
		t.latest.settle()
	}
}

// tally makes the counters of a pool; one that does not exist gets no label.
func (m *metrics) tally(handle param.PoolHandle) *tally {
	// Held until the counters are there, so that forget finds them.
	m.labels.mu.Lock()
	defer m.labels.mu.Unlock()
	label, policy := otherPools, ""
	if info, ok := m.space.Pool(handle); ok {
		label, policy = m.labels.label(info.Handle), info.Policy.String()
	}
	return &tally{
		m:        m,
		accepted: m.resolutions.WithLabelValues(label, policy, resultAccepted),
		unknown:  m.resolutions.WithLabelValues(otherPools, "", resultUnknown),
	}
}

// watch adds the sizes of the handlespace, looked up when metrics are read.
func (m *metrics) watch(space *handlespace.Space) {
	m.space = space
	m.registry.MustRegister(spaceCollector{m})
}

// poolLabel returns the label of a pool that was there a moment ago.
func (m *metrics) poolLabel(handle param.PoolHandle) string {
	m.labels.mu.Lock()
	defer m.labels.mu.Unlock()
	if _, ok := m.space.Pool(handle); !ok {
		return otherPools
	}
	return m.labels.label(handle)
}

// spaceCollector describes the handlespace.
type spaceCollector struct{ m *metrics }

var (
	poolsDesc    = prometheus.NewDesc("rserpool_pools", "Pools in the handlespace.", nil, nil)
	elementsDesc = prometheus.NewDesc("rserpool_pool_elements", "Pool elements by pool and state.", []string{"pool", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (c spaceCollector) Describe(ch chan<- *prometheus.Desc) { ch <- poolsDesc; ch <- elementsDesc }

// Collect implements prometheus.Collector.
func (c spaceCollector) Collect(ch chan<- prometheus.Metric) {
	counts := c.m.space.Counts()
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(poolsDesc, counts.Pools)
	rest := counts
	for _, info := range c.m.space.Pools(nil, "", c.m.labels.limit) {
		label := c.m.poolLabel(info.Handle)
		if label == otherPools {
			continue
		}
		gauge(elementsDesc, info.Elements-info.Suspects, label, admin.StateActive)
		gauge(elementsDesc, info.Suspects, label, admin.StateSuspect)
		rest.Elements -= info.Elements
		rest.Suspects -= info.Suspects
	}
	gauge(elementsDesc, max(0, rest.Elements-rest.Suspects), otherPools, admin.StateActive)
	gauge(elementsDesc, max(0, rest.Suspects), otherPools, admin.StateSuspect)
}
