// Plays moments: seeks to the start, stops at the end. Without it the videos have their own controls.
(function () {
  var MARGIN = 0.02; // seconds: a seek to a start must not show the picture before it
  function code(seconds) {
    var tenths = Math.max(Math.round(seconds * 10), 0), hours = Math.floor(tenths / 36000);
    var minutes = Math.floor(tenths / 600) % 60, rest = tenths % 600;
    var text = (rest < 100 ? '0' : '') + Math.floor(rest / 10) + '.' + rest % 10;
    return hours ? hours + ':' + (minutes < 10 ? '0' : '') + minutes + ':' + text : minutes + ':' + text;
  }
  // a video out of a data URI: browsers seek more surely in a blob
  function prepare(video) {
    var address = video.src, comma = address.indexOf(',');
    if (address.slice(0, 5) !== 'data:') return;
    try {
      var bytes = atob(address.slice(comma + 1)), data = new Uint8Array(bytes.length);
      for (var i = 0; i < bytes.length; i++) data[i] = bytes.charCodeAt(i);
      video.src = URL.createObjectURL(new Blob([data], { type: address.slice(5, address.indexOf(';')) }));
    } catch (error) { return; }
    video.preload = 'auto';
  }
  var players = Array.from(document.querySelectorAll('section.video'), function (section) {
    var videos = Array.from(section.querySelectorAll('video')), status = section.querySelector('.now');
    var duration = parseFloat(section.dataset.duration), current = videos[0], until = null, words = '', chosen = null, ours = false;
    var heads = Array.from(section.querySelectorAll('.head')), buttons = Array.from(section.querySelectorAll('.moments button'));
    function offset(video) { return parseFloat(video.dataset.start); }
    function holds(video, time) { return time >= offset(video) && time <= parseFloat(video.dataset.end) + 0.5; }
    function show(video) {
      videos.forEach(function (other) {
        other.hidden = other !== video;
        if (other !== video) other.pause();
      });
      current = video;
    }
    function mark() {
      var place = 100 * (current.currentTime + offset(current)) / duration;
      heads.forEach(function (head) { head.style.left = place + '%'; head.style.display = 'block'; });
    }
    function go(time, play) {
      var video = videos.find(function (one) { return holds(one, time); });
      if (!video) { status.textContent = 'This part of the video is not in the page.'; return false; }
      show(video);
      prepare(video);
      function seek() {
        ours = true;
        video.currentTime = Math.max(time - offset(video), 0);
        if (play) video.play().catch(function () {});
      }
      if (video.readyState >= 1) seek();
      else {
        video.addEventListener('loadedmetadata', seek, { once: true });
        video.load();
      }
      return true;
    }
    function choose(button) {
      if (chosen) { chosen.classList.remove('on'); chosen.removeAttribute('aria-current'); }
      chosen = button;
      if (button) { button.classList.add('on'); button.setAttribute('aria-current', 'true'); }
    }
    function play(button) {
      var start = parseFloat(button.dataset.start), end = parseFloat(button.dataset.end);
      until = null;
      players.forEach(function (other) { other.pause(); });
      if (!go(start + MARGIN, true)) return;
      until = end;
      choose(button);
      words = code(start) + ' to ' + code(end) + '.';
      status.textContent = 'Playing ' + words;
    }
    function watch() {
      if (until === null || current.paused || current.seeking) return;
      var time = current.currentTime + offset(current);
      if (time >= until - 0.01) {
        current.pause();
        status.textContent = 'Stopped at the end of the moment, ' + code(until) + '.';
        until = null;
      }
    }
    function tick() {
      watch();
      mark();
      if (!current.paused) requestAnimationFrame(tick);
    }
    videos.forEach(function (video) {
      video.addEventListener('play', function () {
        if (until !== null) status.textContent = 'Playing ' + words;
        requestAnimationFrame(tick);
      });
      video.addEventListener('pause', function () { if (until !== null) status.textContent = 'Paused in ' + words; });
      video.addEventListener('timeupdate', function () { watch(); mark(); });
      video.addEventListener('seeking', function () {
        if (!ours) { until = null; status.textContent = ''; }
      });
      video.addEventListener('seeked', function () { ours = false; mark(); });
      video.addEventListener('error', function () { status.textContent = 'This browser cannot play the video.'; });
    });
    buttons.forEach(function (button) { button.addEventListener('click', function () { play(button); }); });
    section.querySelectorAll('.overview').forEach(function (box) {
      box.addEventListener('click', function (event) {
        var area = box.getBoundingClientRect();
        until = null;
        go((event.clientX - area.left) / area.width * duration, false);
      });
    });
    section.querySelectorAll('.strip figure').forEach(function (figure) {
      figure.addEventListener('click', function () { until = null; go(parseFloat(figure.dataset.time), false); });
    });
    if (videos.length) show(current);
    return {
      section: section,
      buttons: buttons,
      play: play,
      pause: function () { until = null; videos.forEach(function (video) { video.pause(); }); },
      first: function () { if (buttons[0] && !buttons[0].disabled) { go(parseFloat(buttons[0].dataset.start) + MARGIN, false); choose(buttons[0]); } }
    };
  });
  if (!players.length) return;
  players[0].first();
  // digits play the moments of the answer that was used last
  var card = document.querySelector('.card');
  document.addEventListener('click', function (event) { card = event.target.closest('.card') || card; });
  document.addEventListener('focusin', function (event) { card = event.target.closest('.card') || card; });
  document.addEventListener('keydown', function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !card || !/^[1-9]$/.test(event.key)) return;
    var button = card.querySelectorAll('.moments button')[event.key - 1];
    if (!button || button.disabled) return;
    event.preventDefault();
    button.focus({ preventScroll: true });
    button.click();
  });
})();
