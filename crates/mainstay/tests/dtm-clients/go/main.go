// The client of DTM's makers, unmodified, as manager and participants, against the door on the port
// given.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/logger"
	"github.com/go-resty/resty/v2"
)

var (
	door, shop string
	mutex      sync.Mutex
	calls      []string
	answers    = map[string]int{}
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(ok bool, what string, args ...interface{}) {
	if !ok {
		panic(fmt.Sprintf(what, args...))
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	mutex.Lock()
	calls = append(calls, query.Get("gid")+r.URL.Path)
	status := answers[r.URL.Path]
	mutex.Unlock()
	if status == 0 {
		status = 200
	}
	if query.Get("trans_type") == "xa" && query.Get("op") == "action" {
		// The branch joins from within, and is told its second phase where the manager said.
		xa, err := dtmcli.XaFromQuery(query)
		check(err)
		check(dtmimp.TransRegisterBranch(&xa.TransBase, map[string]string{
			"url": xa.Phase2URL, "branch_id": xa.BranchID,
		}, "registerBranch"))
	}
	w.WriteHeader(status)
}

func answer(path string, status int) {
	mutex.Lock()
	answers[path] = status
	mutex.Unlock()
}

func called(gid string) string {
	mutex.Lock()
	defer mutex.Unlock()
	var own []string
	for _, call := range calls {
		if strings.HasPrefix(call, gid+"/") {
			own = append(own, strings.TrimPrefix(call, gid))
		}
	}
	return strings.Join(own, " ")
}

func status(gid string) string {
	var seen struct {
		Transaction struct {
			Status string `json:"status"`
		} `json:"transaction"`
	}
	answer, err := http.Get(door + "/query?gid=" + gid)
	check(err)
	defer answer.Body.Close()
	check(json.NewDecoder(answer.Body).Decode(&seen))
	return seen.Transaction.Status
}

func ends(gid, want, path string) {
	began := time.Now()
	for status(gid) != want {
		expect(time.Since(began) < time.Minute, "%s is %s, not %s", gid, status(gid), want)
		time.Sleep(50 * time.Millisecond)
	}
	expect(called(gid) == path, "%s: %s, not %s", gid, called(gid), path)
}

func sagas() {
	body := map[string]int{"amount": 30}
	move := func() (*dtmcli.Saga, string) {
		gid := dtmcli.MustGenGid(door)
		return dtmcli.NewSaga(door, gid).
			Add(shop+"/out", shop+"/undo-out", body).
			Add(shop+"/in", shop+"/undo-in", body), gid
	}
	saga, gid := move()
	saga.WaitResult = true
	check(saga.Submit())
	ends(gid, "succeed", "/out /in")
	answer("/in", 409)
	saga, gid = move()
	saga.WaitResult = true
	err := saga.Submit()
	expect(err != nil && strings.Contains(err.Error(), "FAILURE"), "%v", err)
	ends(gid, "failed", "/out /in /undo-in /undo-out")
	saga, gid = move()
	saga.SetConcurrent().AddBranchOrder(1, []int{0})
	saga.RetryLimit = 1
	answer("/in", 500)
	check(saga.Submit())
	ends(gid, "failed", "/out /in /in /undo-in /undo-out")
	answer("/in", 200)
}

func tccs() {
	run := func(gid string) error {
		return dtmcli.TccGlobalTransaction(door, gid, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
			_, err := tcc.CallBranch(map[string]int{"n": 1}, shop+"/try-a", shop+"/confirm-a", shop+"/cancel-a")
			if err != nil {
				return nil, err
			}
			return tcc.CallBranch(map[string]int{"n": 2}, shop+"/try-b", shop+"/confirm-b", shop+"/cancel-b")
		})
	}
	gid := dtmcli.MustGenGid(door)
	check(run(gid))
	ends(gid, "succeed", "/try-a /try-b /confirm-b /confirm-a")
	answer("/try-b", 409)
	gid = dtmcli.MustGenGid(door)
	err := run(gid)
	expect(errors.Is(err, dtmcli.ErrFailure), "%v", err)
	ends(gid, "failed", "/try-a /try-b /cancel-b /cancel-a")
}

func messages() {
	send := func(local error) (string, error) {
		gid := dtmcli.MustGenGid(door)
		message := dtmcli.NewMsg(door, gid).Add(shop+"/mail", map[string]int{"n": 1})
		return gid, message.DoAndSubmit(shop+"/asked", func(*dtmcli.BranchBarrier) error { return local })
	}
	gid, err := send(nil)
	check(err)
	ends(gid, "succeed", "/mail")
	gid, err = send(dtmcli.ErrFailure)
	expect(errors.Is(err, dtmcli.ErrFailure), "%v", err)
	ends(gid, "failed", "")
	// Its sender does not know what became of the local part, and asks as the coordinator does.
	gid, err = send(errors.New("reset"))
	expect(err != nil, "it is told")
	ends(gid, "succeed", "/asked /mail")
	gid = dtmcli.MustGenGid(door)
	check(dtmcli.NewMsg(door, gid).Add(shop+"/mail", nil).SetDelay(1).Submit())
	expect(called(gid) == "", "it is delayed")
	ends(gid, "succeed", "/mail")
}

func xas() {
	run := func(gid string, local error) error {
		return dtmcli.XaGlobalTransaction(door, gid, func(xa *dtmcli.Xa) (*resty.Response, error) {
			answer, err := xa.CallBranch(map[string]int{"n": 1}, shop+"/xa")
			if err == nil {
				err = local
			}
			return answer, err
		})
	}
	gid := dtmcli.MustGenGid(door)
	check(run(gid, nil))
	ends(gid, "succeed", "/xa /xa")
	gid = dtmcli.MustGenGid(door)
	err := run(gid, dtmcli.ErrFailure)
	expect(errors.Is(err, dtmcli.ErrFailure), "%v", err)
	ends(gid, "failed", "/xa /xa")
}

func main() {
	logger.InitLog("error")
	door = "http://127.0.0.1:" + os.Args[1] + "/api/dtmsvr"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	shop = "http://" + listener.Addr().String()
	go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(serve))) }()
	sagas()
	tccs()
	messages()
	xas()
}
