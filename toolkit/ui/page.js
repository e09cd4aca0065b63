// What the page does in the browser by itself, read from what it shows: title and notice, the job in the address, a refusal beside its field,
// and the focus where it was when HTML is drawn anew. No request is made here.
(() => {
  const NAME = 'anime-toolkit';
  const one = (selector, within = document) => within.querySelector(selector);
  let job, status, focused, wantsNotice = false, wantsStage = false, fieldUntil = 0;

  function stage() {
    const shown = one('#stage .stage[data-job]');
    if (shown && shown.dataset.status === 'running') document.title = `${shown.dataset.title} · ${NAME}`;
    else if (!document.hidden) document.title = NAME; // else it goes on saying what became of the job
    if (!shown) return;
    if (shown.dataset.job !== job) {
      const address = new URL(location);
      address.searchParams.set('job', shown.dataset.job);
      history.replaceState(history.state, '', address);
      // on a phone the stage is below the form: who pressed for a job goes there once it is on it, since an empty stage is too short to scroll to
      if (wantsStage && window.innerWidth <= 800) one('#result').scrollIntoView();
      wantsStage = false;
      fieldUntil = 0;
    } else if (status === 'running' && shown.dataset.status !== 'running') {
      if (document.hidden) document.title = `${shown.dataset.title} · ${NAME}`;
      if (wantsNotice && document.hidden) new Notification(NAME, {body: shown.dataset.title, tag: job});
    }
    [job, status] = [shown.dataset.job, shown.dataset.status];
  }

  function notices() {
    const can = 'Notification' in window && window.isSecureContext && Notification.permission !== 'denied';
    document.querySelectorAll('[data-act=notify]').forEach((ask) => { ask.hidden = !can || wantsNotice; });
  }

  function refusals() {
    const said = one('#refusal .refusal');
    const place = said && said.dataset.field && document.getElementById(said.dataset.field);
    const field = place && place.closest('#form') && one('textarea, input', place);
    document.querySelectorAll('.beside').forEach((old) => { if (!field || old.parentElement !== place) old.remove(); });
    document.querySelectorAll('[data-wrong]').forEach((old) => {
      if (old !== field) ['data-wrong', 'aria-invalid', 'aria-describedby'].forEach((name) => old.removeAttribute(name));
    });
    if (!field) return;
    const beside = one('.beside', place) || place.appendChild(Object.assign(document.createElement('p'), {className: 'refusal beside', id: 'beside'}));
    if (beside.textContent !== said.textContent) beside.textContent = said.textContent;
    said.classList.add('aside');
    Object.entries({'data-wrong': '', 'aria-invalid': 'true', 'aria-describedby': 'beside'}).forEach((pair) => field.setAttribute(...pair));
    if (Date.now() > fieldUntil || field === document.activeElement) return;
    const folded = place.closest('.fold') && one('.label-wrap', place.closest('.fold'));
    if (folded && !folded.classList.contains('open')) folded.click();
    setTimeout(() => field.focus(), 50);
  }

  // what was pressed is drawn anew with the answer: the same button, or the first of the same job, has the focus again
  const same = (was) => [...document.querySelectorAll(`#${was.root} [data-job="${was.job}"]`)]
    .sort((a, b) => (b.dataset.act === was.act) - (a.dataset.act === was.act) || (b.dataset.number === was.number) - (a.dataset.number === was.number))[0];
  document.addEventListener('focusin', ({target}) => {
    const root = target.closest && target.dataset.act && target.closest('#stage, #gallery, #queue, #latest');
    focused = root ? {element: target, root: root.id, ...target.dataset} : undefined;
  });
  function focus() {
    if (!focused || focused.element.isConnected || document.activeElement !== document.body) return;
    const again = same(focused);
    if (again) again.focus({preventScroll: true});
  }

  // who pressed is taken to the field that is refused, who types is not
  function pressed() {
    fieldUntil = Date.now() + 3000;
    refusals();
  }
  document.addEventListener('input', () => { fieldUntil = 0; });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.shiftKey && event.target.closest('#prompt')) pressed();
  });
  document.addEventListener('click', ({target}) => {
    if (!target.closest) return;
    if (target.closest('#create')) pressed();
    if (target.closest('.create, [data-act]')) wantsStage = true;
    if (!target.closest('[data-act=notify]')) return;
    Notification.requestPermission().then((answer) => { wantsNotice = answer === 'granted'; notices(); });
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden) stage(); });

  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; stage(); notices(); refusals(); focus(); }, 30);
  }).observe(document, {childList: true, subtree: true});
})();
