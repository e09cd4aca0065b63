// What the page does in the browser by itself, read from what it shows: title and notice, the job in the address, a refusal beside its field,
// and the focus where it was when HTML is drawn anew. No request is made here.
(() => {
  const NAME = 'anime-toolkit';
  const one = (selector, within = document) => within.querySelector(selector);
  let job, status, told, focused, wantsNotice = false, wantsStage = false;

  function stage() {
    const shown = one('#stage .stage[data-job]');
    document.title = shown && shown.dataset.status === 'running' ? `${shown.dataset.title} · ${NAME}` : NAME;
    if (!shown) return;
    if (shown.dataset.job !== job) {
      const address = new URL(location);
      address.searchParams.set('job', shown.dataset.job);
      history.replaceState(history.state, '', address);
      // on a phone the stage is below the form: who pressed for a job goes there once it is on it, since an empty stage is too short to scroll to
      if (wantsStage && window.innerWidth <= 800) one('#result').scrollIntoView();
      wantsStage = false;
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
    const key = said ? `${said.dataset.field}: ${said.textContent}` : '';
    if (key === told) return;
    told = key;
    document.querySelectorAll('.beside').forEach((old) => old.remove());
    document.querySelectorAll('[data-wrong]').forEach((field) => {
      ['data-wrong', 'aria-invalid', 'aria-describedby'].forEach((name) => field.removeAttribute(name));
    });
    const place = said && said.dataset.field && document.getElementById(said.dataset.field);
    const field = place && one('textarea, input', place);
    if (!field || !place.closest('#form')) return;
    const beside = Object.assign(document.createElement('p'), {className: 'refusal beside', id: 'beside', textContent: said.textContent});
    place.append(beside);
    said.classList.add('aside');
    field.setAttribute('aria-invalid', 'true');
    field.setAttribute('aria-describedby', 'beside');
    field.setAttribute('data-wrong', '');
    if (said.getAttribute('role') !== 'alert') return;
    const folded = place.closest('.fold');
    if (folded && !place.offsetParent) one('.label-wrap', folded).click();
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

  document.addEventListener('click', ({target}) => {
    if (!target.closest) return;
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
